# shellcheck shell=bash
# The base image where none can be pulled: a Debian built by debootstrap from the mirror that apt uses.

# debian_base PACKAGES: builds the base image once and prints its name, which contains a hash of its inputs. Concurrent
# calls wait for each other: they would write to one folder.
debian_base() {
  local packages=$1 suite mirror key name lock
  command -v debootstrap >/dev/null ||
    refuse "debootstrap is not installed; it builds the base image" \
      "Install it (apt-get install debootstrap), or name an image that podman can pull: BASE_IMAGE=python:3.11-slim-bookworm"
  # shellcheck source=/dev/null
  suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  mirror=$(apt_mirror "$suite")
  if [ -z "$mirror" ]; then # apt lists its mirrors only after an update
    apt-get update -qq >&2 || true
    mirror=$(apt_mirror "$suite")
  fi
  [ -n "$mirror" ] ||
    refuse "apt names no Debian mirror for '$suite'" "debootstrap works on Debian only. Name an image that podman can pull: BASE_IMAGE=python:3.11-slim-bookworm"
  key=$(echo "$suite $packages $(uname -m) $(declare -f mend_base strip_base)" | sha256sum)
  name=localhost/ddpm-ray-base:$suite-${key:0:12}
  mkdir -p "$cache_dir/podman"
  exec {lock}>"$cache_dir/podman/base.lock"
  flock "$lock"
  own_podman image exists "$name" || step "built the base image with debootstrap" make_base "$packages" "$suite" "$mirror" "$name"
  exec {lock}>&-
  echo "$name"
}

# apt_mirror SUITE [ARCHIVE]: prints the mirror from which apt gets this suite of the archive debian or debian-security.
apt_mirror() {
  # shellcheck disable=SC2016 # apt's own variables
  { apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 2>/dev/null || true; } |
    awk -v suite="$1" -v end="/${2:-debian}/?$" '$2 == suite && $1 ~ end {print $1; exit}'
}

# debootstrap mounts /proc below the root. It runs in its own mount namespace, so that no mount remains if it is killed,
# and `rm -rf` removes files only.
make_base() {
  local packages=$1 suite=$2 mirror=$3 name=$4 root=$cache_dir/podman/base debs=$cache_dir/podman/debs
  rm -rf --one-file-system "$root"
  mkdir -p "$root" "$debs"
  unshare --mount debootstrap --variant=minbase --cache-dir="$debs" --include="$packages" "$suite" "$root" "$mirror" >"$root.log" 2>&1 ||
    { tail -n 20 "$root.log" >&2 && return 1; }
  mend_base "$root" "$suite" "$mirror"
  strip_base "$root"
  tar -C "$root" -c . | own_podman import --quiet - "$name" >/dev/null
  rm -rf --one-file-system "$root"
}

# mend_base ROOT SUITE MIRROR: installs the updates since the suite's last point release.
# The bodies of mend_base and strip_base are part of the image's cache key.
mend_base() {
  local root=$1 suite=$2 mirror=$3 security
  security=$(apt_mirror "$suite-security" debian-security)
  [ -n "$security" ] || say "apt knows no $suite-security here: the base lacks Debian's latest security updates"
  printf 'deb %s %s main\n' "$mirror" "$suite" "$mirror" "$suite-updates" ${security:+"$security" "$suite-security"} \
    >"$root/etc/apt/sources.list"
  cp /etc/resolv.conf /etc/hosts "$root/etc/"
  {
    chroot "$root" apt-get update -q
    DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get upgrade -qy
  } >>"$root.log" 2>&1 || { tail -n 20 "$root.log" >&2 && return 1; }
  rm "$root/etc/resolv.conf" "$root/etc/hosts"
}

# strip_base ROOT: removes caches and documentation, except licences, and the mirror's address, which is of this machine only.
strip_base() {
  rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/usr/share/{man,locale,info}/* "$1"/etc/apt/sources.list
  find "$1/usr/share/doc" ! -type d ! -name copyright -delete
}
