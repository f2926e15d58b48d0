# shellcheck shell=bash
# Debian packages: only what is missing is installed.

# Each line: the program that is looked for, and the package that has it. debootstrap makes the base of the images that
# the node's pods run (hack/images).
node_packages='
containerd containerd
runc runc
etcd etcd-server
/usr/lib/cni/ptp containernetworking-plugins
iptables iptables
podman podman
pkill procps
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
    refuse "these packages are missing: ${missing[*]}" "There is no apt-get here, and what the node is made of comes by it: use Debian or Ubuntu, or Docker and kind."
  step "installed ${missing[*]}" install_packages "${missing[@]}"
}

# Nothing of a package is started, neither now nor when this machine starts again.
install_packages() {
  local log=$state/log/apt.log before
  mkdir -p "$state/log"
  before=$(enabled_services)
  (
    trap services_start_again EXIT
    no_services_start
    apt_get install "$@" >"$log" 2>&1 || { apt_get update && apt_get install "$@"; } >>"$log" 2>&1 # a fresh machine has no lists
  ) || {
    tail -n 5 "$log" >&2
    refuse "apt-get could not install: $*" "All it said is in $log. Install them by hand, then run this again."
  }
  disable_services_but "$before"
}

apt_get() { DEBIAN_FRONTEND=noninteractive apt-get "$1" -y -q --no-install-recommends "${@:2}"; }

# Debian starts a package's service when it installs it; an etcd and a containerd for the whole machine are not wanted
# here. Whatever becomes of this process: once it is gone, the file forbids nothing any more.
policy=/usr/sbin/policy-rc.d
no_services_start() {
  [ ! -e "$policy" ] || return 0
  printf '#!/bin/sh\n# by ddpm-ray hack/node, only while it installs packages\n[ ! -d /proc/%s ] || exit 101\n' "$BASHPID" >"$policy"
  chmod +x "$policy"
}
services_start_again() { ! grep -qs 'ddpm-ray hack/node' "$policy" || rm -f "$policy"; }

# enabled_services: the links by which this machine starts services, of systemd and of System V.
init_folders=(/etc/systemd/{system,user} /etc/rc{2,3,4,5,S}.d)
enabled_services() {
  find "${init_folders[@]}" '(' -path '*.wants/*' -o -path '*.requires/*' -o -path '*/rc?.d/S*' ')' -type l 2>/dev/null |
    LC_ALL=C sort || true
}

# disable_services_but LINKS: removes every other such link, which is what `systemctl disable` does.
disable_services_but() { LC_ALL=C comm -13 <(echo "$1") <(enabled_services) | xargs -r -d '\n' rm -f; }
