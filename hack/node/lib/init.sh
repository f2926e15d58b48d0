#!/usr/bin/env bash
# The first process of the node, in its own process, mount and network namespaces: `unshare … init.sh`, started by up.
# When it dies, the kernel kills all other processes there and removes their mounts, devices and iptables rules.
set -euo pipefail
node=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$node/lib/say.sh"
source "$node/lib/settings.sh"
source "$node/lib/daemons.sh"

mount_own_folders() {
  awk -v cache="$cache_dir/" 'index($2, cache) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount --lazy # builds in progress
  mkdir -p "$state"/{lib,log}
  mount --bind "$state/log" /var/log
  mount --bind "$state/lib" /var/lib
  mount -t tmpfs -o mode=755 tmpfs /run
  mount -t proc proc /proc
  mount --make-rshared / # pods may request shared mounts; it stays a slave too, so that unmounts on this machine propagate
  mount_own_sysctls vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes
}

# mount_own_sysctls NAME…: mounts copies over sysctls that the kubelet sets and that apply to the whole machine.
mount_own_sysctls() {
  local name copy
  for name in "$@"; do
    copy=/run/settings/$name
    mkdir -p "$(dirname "$copy")"
    cat "/proc/sys/$name" >"$copy"
    mount --bind "$copy" "/proc/sys/$name"
  done
}

configure_network() {
  ip link set lo up
  wait_for 60 ip link show eth0 # the veth device, created by up
  ip address add "$node_ip/30" dev eth0
  ip link set eth0 up
  # The API server calls webhooks by service address. Routing comes before kube-proxy's rules, so it needs this route.
  ip route add "$services" via "$host_ip"
  echo 1 >/proc/sys/net/ipv4/ip_forward
}

# write_config: copies config/, with the values of settings.sh in place of @name@.
write_config() {
  local file name text
  mkdir -p "/run/node/registries/$registry"
  cp -r "$node/config/." /run/node
  while read -r file; do
    text=$(<"$file")
    for name in node_ip pods registry cgroup tools_image; do text=${text//@$name@/${!name}}; done
    echo "$text" >"$file"
  done < <(find /run/node -type f)
  mv /run/node/registry.toml "/run/node/registries/$registry/hosts.toml"
}

# Logs which daemon exited and how; only its parent, this process, can know. Daemons are not restarted, so that a crash
# is noticed.
watch_daemons() {
  local pid status
  while :; do
    status=0
    wait -n -p pid || status=$?
    [ -n "${pid:-}" ] || return 0
    say "${daemons[$pid]} exited with status $status: /var/log/${daemons[$pid]}.log"
  done
}

read -r host_pid _ </proc/self/stat # still this machine's /proc, so this is the PID outside the node
ulimit -n "$(ulimit -Hn)"           # inherited by pods; Ray opens many files
mount_own_folders
write_config
echo "$host_pid" >"$state/init.pid"
configure_network
start_daemons
watch_daemons
