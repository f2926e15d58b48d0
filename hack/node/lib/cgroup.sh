# shellcheck shell=bash
# The node's cgroup. It contains every process of the node, including those of pods. So it shows whether a node runs, and
# killing its processes stops exactly the node, even after its first process has died.

cgroup_v2() { [ -e /sys/fs/cgroup/cgroup.controllers ]; }

# cgroup_roots: the root of each hierarchy: one with cgroup v2, one per controller with v1.
cgroup_roots() {
  if cgroup_v2; then echo /sys/fs/cgroup; else find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d; fi
}

# main_cgroup: the node's cgroup in the hierarchy whose process lists are used. containerd adds pods to all hierarchies.
main_cgroup() { if cgroup_v2; then echo "/sys/fs/cgroup/$cgroup"; else echo "/sys/fs/cgroup/pids/$cgroup"; fi; }

make_cgroup() {
  local root controller
  for root in $(cgroup_roots); do mkdir -p "$root/$cgroup"; done
  mkdir -p "$(main_cgroup)/daemons" # with v2, a cgroup that delegates controllers must not contain processes
  cgroup_v2 || return 0
  for root in /sys/fs/cgroup "/sys/fs/cgroup/$cgroup"; do
    for controller in $(<"$root/cgroup.controllers"); do
      echo "+$controller" >"$root/cgroup.subtree_control" 2>/dev/null || say "cannot delegate the cgroup controller $controller"
    done
  done
}

join_cgroup() { echo "$BASHPID" >"$(main_cgroup)/daemons/cgroup.procs"; }

node_processes() { find "$(main_cgroup)" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u; }

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

# cgroup_contents: prints every cgroup of the node, and the PID and name of every process in it.
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
