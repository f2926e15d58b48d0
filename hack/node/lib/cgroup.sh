# shellcheck shell=bash
# The node's cgroup: every process of the node is in it or below it, pods' processes too. So it says whether a node runs,
# and killing what is in it ends exactly the node, however it was started and whatever became of its first process.

cgroup_v2() { [ -e /sys/fs/cgroup/cgroup.controllers ]; }

# Every hierarchy's root: one with cgroup v2, one a controller with v1.
cgroup_roots() {
  if cgroup_v2; then echo /sys/fs/cgroup; else find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d; fi
}

# The one hierarchy whose lists of processes are used. containerd puts pods' processes into every one of them.
cgroup_home() { if cgroup_v2; then echo "/sys/fs/cgroup/$cgroup"; else echo "/sys/fs/cgroup/pids/$cgroup"; fi; }

make_cgroup() {
  local root controller
  for root in $(cgroup_roots); do mkdir -p "$root/$cgroup"; done
  mkdir -p "$(cgroup_home)/daemons" # with v2 a group that passes controllers on may not hold processes of its own
  cgroup_v2 || return 0
  for root in /sys/fs/cgroup "/sys/fs/cgroup/$cgroup"; do
    for controller in $(<"$root/cgroup.controllers"); do
      echo "+$controller" >"$root/cgroup.subtree_control" 2>/dev/null || say "cgroup controller $controller cannot be passed on"
    done
  done
}

join_cgroup() { echo "$BASHPID" >"$(cgroup_home)/daemons/cgroup.procs"; }

node_processes() { find "$(cgroup_home)" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u; }

kill_node_processes() {
  local processes
  mapfile -t processes < <(node_processes)
  ((${#processes[@]} == 0)) || kill -KILL "${processes[@]}" 2>/dev/null
  [ -z "$(node_processes)" ]
}

remove_cgroup() {
  local root left=0
  for root in $(cgroup_roots); do
    [ ! -d "$root/$cgroup" ] || find "$root/$cgroup" -depth -type d -exec rmdir {} + || left=1
  done
  return $left
}

# cgroup_contents: every cgroup of the node, and every process in one, by its number and name.
cgroup_contents() {
  local root group pid
  for root in $(cgroup_roots); do
    [ ! -d "$root/$cgroup" ] || find "$root/$cgroup" -type d
  done | while read -r group; do
    echo "cgroup $group"
    { cat "$group/cgroup.procs" 2>/dev/null || true; } | while read -r pid; do
      echo "process $pid $(cat "/proc/$pid/comm" 2>/dev/null) in $group"
    done
  done
}
