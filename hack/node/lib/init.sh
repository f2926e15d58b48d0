#!/usr/bin/env bash
# The first process of the node, in process, mount and network namespaces of its own: `unshare … init.sh`, started by up.
# When it dies the kernel ends all other processes in there, and with them go mounts, devices and iptables rules.
set -euo pipefail
node=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$node/lib/say.sh"
source "$node/lib/settings.sh"
source "$node/lib/daemons.sh"

own_folders() {
  awk -v cache="$cache_dir/" 'index($2, cache) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount --lazy # builds in progress
  mkdir -p "$state"/{lib,log}
  mount --bind "$state/log" /var/log
  mount --bind "$state/lib" /var/lib
  mount -t tmpfs -o mode=755 tmpfs /run
  mount -t proc proc /proc
  mount --make-rshared / # as pods may ask for; still a slave as well: what this machine unmounts goes from here too
  own_settings vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes
}

# own_settings NAME…: what the kubelet insists on setting would change this machine; a copy of each takes it instead.
own_settings() {
  local name copy
  for name in "$@"; do
    copy=/run/settings/$name
    mkdir -p "$(dirname "$copy")"
    cat "/proc/sys/$name" >"$copy"
    mount --bind "$copy" "/proc/sys/$name"
  done
}

own_network() {
  ip link set lo up
  wait_for 60 ip link show eth0 # the wire to this machine, which up lays
  ip address add "$node_ip/30" dev eth0
  ip link set eth0 up
  # To whom kube-proxy's rules take it is decided after the way there: the API server asks webhooks by service address.
  ip route add "$services" via "$host_ip"
  echo 1 >/proc/sys/net/ipv4/ip_forward
}

# write_config: the files of config/ with the addresses of settings.sh in place of @name@.
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

# Only this process sees which daemon ended, and how. Nothing is started again: a daemon that dies is a finding.
watch_daemons() {
  local pid status
  while :; do
    status=0
    wait -n -p pid || status=$?
    [ -n "${pid:-}" ] || return 0
    say "${daemons[$pid]} ended with status $status: /var/log/${daemons[$pid]}.log"
  done
}

read -r host_pid _ </proc/self/stat # still this machine's /proc: the number that others know this process by
ulimit -n "$(ulimit -Hn)"           # pods inherit it, and Ray opens many files
own_folders
write_config
echo "$host_pid" >"$state/init.pid"
own_network
start_daemons
watch_daemons
