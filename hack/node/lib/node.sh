# shellcheck shell=bash
# The node as seen from this machine: does it run, whose is it, how to get in, how to end it.

# node_owner: the state folder of the node that runs on this machine, if one does; there is one at a time.
node_owner() {
  local pid line
  for pid in $(node_processes); do
    line=$(tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -A1 '/lib/init\.sh$' | tail -n 1) && echo "$line" && return
  done
  return 0
}

need_own_node() {
  local owner
  owner=$(node_owner)
  [ -z "$owner" ] || [ "$owner" = "$state" ] ||
    refuse "a node of another cache folder runs on this machine: $owner" \
      "There is one at a time. Use it, or stop it: XDG_CACHE_HOME=$(dirname "$(dirname "$owner")") hack/node/down"
}

# node_pid: its first process, as this machine counts; nothing if that is not in the node's cgroup (a number is used again).
node_pid() {
  local pid
  pid=$(cat "$state/init.pid" 2>/dev/null) && node_processes | grep -x "$pid"
}

need_node() { node_pid >/dev/null || refuse "no node is up" "Start it: hack/node/up"; }

# in_node COMMAND…: in the node's namespaces, where its files and its network are.
in_node() { nsenter --target "$(node_pid)" --mount --net --pid env "PATH=$(<"$state/path"):$PATH" "$@"; }

cluster() { PATH=$(<"$state/path"):$PATH kubectl --kubeconfig "$kubeconfig" --cache-dir "$state/kubectl" "$@"; }

# one_at_a_time: up and down wait for each other. The lock is let go when the caller ends, so nothing may inherit it.
one_at_a_time() {
  mkdir -p "$cache_dir"
  exec 9>"$cache_dir/node.lock"
  flock --wait 300 9 || refuse "another up or down has been at work for 5 minutes" "See what holds it: fuser -v $cache_dir/node.lock"
}

# stop_node: ends every process of the node at once, whatever state it is in, and removes what is not a process.
# There is no gentler way on purpose: this one also cleans up after a crash, and so it is tried every time.
stop_node() {
  wait_for 30 kill_node_processes ||
    refuse "these processes of the node do not end: $(node_processes | paste -sd' ')" "They wait for the kernel; look at /proc/PID/stack, then run this again."
  ! ip link show "$link" >/dev/null 2>&1 || ip link delete "$link"
  [ ! -d "$state" ] || forget_cluster
  wait_for 10 remove_cgroup || {
    say "cgroups called $cgroup could not be removed; this is in them:"
    cgroup_contents | sort >&2
    return 1
  }
}

# forget_cluster: the next start is a new cluster. Images and layers stay.
forget_cluster() {
  find "$state" -mindepth 1 -maxdepth 1 ! -name lib ! -name log -exec rm -rf --one-file-system {} +
  [ ! -d "$state/lib" ] ||
    find "$state/lib" -mindepth 1 -maxdepth 1 ! -name containerd ! -name registry ! -name containers -exec rm -rf --one-file-system {} +
}

# remove_images: the node's, and podman's store of those that were built, on which podman leaves a mount.
remove_images() {
  awk -v store="$cache_dir/podman/" 'index($2, store) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount
  rm -rf --one-file-system "$state" "$cache_dir/podman"
}
