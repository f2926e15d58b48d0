# shellcheck shell=bash
# The node, seen from this machine: whether it runs, who owns it, how to enter and stop it.

# node_owner: prints the state folder of the node that runs on this machine, if any. There is at most one.
node_owner() {
  local pid line
  for pid in $(node_processes); do
    line=$(tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -A1 '/lib/init\.sh$' | tail -n 1) && echo "$line" && return
  done
  return 0
}

need_no_other_node() {
  local owner
  owner=$(node_owner)
  [ -z "$owner" ] || [ "$owner" = "$state" ] ||
    refuse "another node runs on this machine, from the cache folder $owner" \
      "Only one can run at a time. Use it, or stop it: XDG_CACHE_HOME=$(dirname "$(dirname "$owner")") hack/node/down"
}

# node_pid: prints the PID of the node's first process on this machine; fails if it is not in the node's cgroup, because
# PIDs are reused.
node_pid() {
  local pid
  pid=$(cat "$state/init.pid" 2>/dev/null) && node_processes | grep -x "$pid"
}

need_node() { node_pid >/dev/null || refuse "no node is running" "Start it: hack/node/up"; }

# in_node COMMAND…: runs a command in the node's namespaces, with its files and its network.
in_node() { nsenter --target "$(node_pid)" --mount --net --pid env "PATH=$(<"$state/path"):$PATH" "$@"; }

cluster() { PATH=$(<"$state/path"):$PATH kubectl --kubeconfig "$kubeconfig" --cache-dir "$state/kubectl" "$@"; }

# acquire_node_lock: makes up and down wait for each other. The lock is released when the caller exits, so no child process
# may inherit its descriptor.
acquire_node_lock() {
  mkdir -p "$cache_dir"
  exec 9>"$cache_dir/node.lock"
  flock --wait 300 9 || refuse "another up or down has been running for 5 minutes" "Find the process: fuser -v $cache_dir/node.lock"
}

# stop_node: kills every process of the node, whatever its state, and removes its other traces. There is deliberately no
# graceful way: this one must work after a crash, and so it is exercised every time.
stop_node() {
  wait_for 30 kill_node_processes ||
    refuse "these processes of the node do not exit: $(node_processes | paste -sd' ')" "They wait for the kernel: see /proc/PID/stack, then run this again."
  ! ip link show "$link" >/dev/null 2>&1 || ip link delete "$link"
  [ ! -d "$state" ] || remove_cluster_state
  wait_for 10 remove_cgroup || {
    say "could not remove the cgroups $cgroup; they contain:"
    cgroup_contents | sort >&2
    return 1
  }
}

# remove_cluster_state: makes the next start create a new cluster. Images and layers stay.
remove_cluster_state() {
  find "$state" -mindepth 1 -maxdepth 1 ! -name lib ! -name log -exec rm -rf --one-file-system {} +
  [ ! -d "$state/lib" ] ||
    find "$state/lib" -mindepth 1 -maxdepth 1 ! -name containerd ! -name registry ! -name containers -exec rm -rf --one-file-system {} +
}

# remove_images: removes the node's images, and podman's store of built images, on which podman leaves a mount.
remove_images() {
  awk -v store="$cache_dir/podman/" 'index($2, store) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount
  rm -rf --one-file-system "$state" "$cache_dir/podman"
}
