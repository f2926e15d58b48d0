# shellcheck shell=bash
# Debian packages: installs the missing ones.

# Each line: a program, and the package that contains it. debootstrap builds the base of the project's images (hack/images).
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

# need_packages LINES: installs missing packages of such a list; refuses if it cannot.
need_packages() {
  local program package missing=()
  while read -r program package; do
    [ -z "$program" ] || command -v "$program" >/dev/null || missing+=("$package")
  done <<<"$1"
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null ||
    refuse "these packages are missing: ${missing[*]}" "The node needs apt-get to install them: use Debian or Ubuntu, or Docker and kind."
  step "installed ${missing[*]}" install_packages "${missing[@]}"
}

# Installs packages without starting their services, now or when this machine boots.
install_packages() {
  local log=$state/log/apt.log before
  mkdir -p "$state/log"
  before=$(enabled_services)
  (
    trap restore_service_policy EXIT
    forbid_service_starts
    apt_get install "$@" >"$log" 2>&1 || { apt_get update && apt_get install "$@"; } >>"$log" 2>&1 # a fresh machine has no package lists
  ) || {
    tail -n 5 "$log" >&2
    refuse "apt-get could not install: $*" "See $log. Install them by hand, then run this again."
  }
  disable_services_except "$before"
}

apt_get() { DEBIAN_FRONTEND=noninteractive apt-get "$1" -y -q --no-install-recommends "${@:2}"; }

# Debian starts the services of a package when it installs it, but no etcd or containerd is wanted on this machine itself.
# The file forbids that only while this process exists, so it does no harm if the process is killed.
policy=/usr/sbin/policy-rc.d
forbid_service_starts() {
  [ ! -e "$policy" ] || return 0
  printf '#!/bin/sh\n# by ddpm-ray hack/node, only while it installs packages\n[ ! -d /proc/%s ] || exit 101\n' "$BASHPID" >"$policy"
  chmod +x "$policy"
}
restore_service_policy() { ! grep -qs 'ddpm-ray hack/node' "$policy" || rm -f "$policy"; }

# enabled_services: prints the links that start services at boot, of systemd and of System V.
init_folders=(/etc/systemd/{system,user} /etc/rc{2,3,4,5,S}.d)
enabled_services() {
  find "${init_folders[@]}" '(' -path '*.wants/*' -o -path '*.requires/*' -o -path '*/rc?.d/S*' ')' -type l 2>/dev/null |
    LC_ALL=C sort || true
}

# disable_services_except LINKS: removes every other such link, as `systemctl disable` does.
disable_services_except() { LC_ALL=C comm -13 <(echo "$1") <(enabled_services) | xargs -r -d '\n' rm -f; }
