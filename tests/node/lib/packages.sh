# shellcheck shell=bash
# Debian packages: only what is missing is installed.

# Each line: the program that is looked for, and the package that has it. debootstrap makes the base of the images that
# the node's pods run (tests/images).
node_packages='
containerd containerd
runc runc
etcd etcd-server
/usr/lib/cni/ptp containernetworking-plugins
iptables iptables
podman podman
debootstrap debootstrap
ip iproute2
openssl openssl
nsenter util-linux
flock util-linux
'

# need_packages LINES: as above; refuses where they can neither be found nor installed.
need_packages() {
  local program package missing=()
  while read -r program package; do
    [ -z "$program" ] || command -v "$program" >/dev/null || missing+=("$package")
  done <<<"$1"
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null ||
    refuse "these packages are missing: ${missing[*]}" "There is no apt-get here. Install what holds the same programs, then run this again."
  step "installed ${missing[*]}" install_packages "${missing[@]}"
}

install_packages() {
  local log=$state/log/apt.log
  mkdir -p "$state/log"
  no_services_start
  if ! apt_get install "$@" >"$log" 2>&1; then # a fresh machine has no package lists yet
    { apt_get update && apt_get install "$@"; } >>"$log" 2>&1 || {
      services_start_again
      tail -n 5 "$log" >&2
      refuse "apt-get could not install: $*" "All it said is in $log. Install them by hand, then run this again."
    }
  fi
  services_start_again
}

apt_get() { DEBIAN_FRONTEND=noninteractive apt-get "$1" -y -q --no-install-recommends "${@:2}"; }

# Debian starts a package's service when it installs it; an etcd and a containerd for the whole machine are not wanted here.
policy=/usr/sbin/policy-rc.d
no_services_start() {
  [ ! -e $policy ] || return 0
  printf '#!/bin/sh\n# by ddpm-ray tests/node, only while it installs packages\nexit 101\n' >$policy
  chmod +x $policy
}
services_start_again() { ! grep -qs 'ddpm-ray tests/node' $policy || rm -f $policy; }
