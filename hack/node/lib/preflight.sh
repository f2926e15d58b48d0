# shellcheck shell=bash
# Prerequisites of a node. Each check refuses with a hint; none changes the machine.

need_root() {
  [ "$(id -u)" = 0 ] || refuse "this needs root: the node mounts file systems, creates network devices and runs containers" "Run it as root, for example with sudo."
}

need_linux() {
  [ "$(uname -s)" = Linux ] || refuse "the node needs Linux; this is $(uname -s)" "Use Docker and kind: ./kind-setup.sh --provider kind"
}

# The node mounts its own /run, /var/lib and /var/log, which would hide a cache folder below one of them.
need_visible_cache() {
  case $(realpath -m "$cache_dir")/ in
  /run/* | /var/run/* | /var/lib/* | /var/log/*)
    refuse "the cache folder $cache_dir is below a folder over which the node mounts its own" "Set XDG_CACHE_HOME to a folder outside of /run, /var/lib and /var/log."
    ;;
  esac
}

# 30 GB for the worker image: built, in the registry, and unpacked. Once that exists, only the pods need space.
need_disk() {
  local needed=30 free
  ! compgen -G "$state/lib/registry/docker/registry/v2/repositories/ddpm-ray-worker/_manifests/tags/*" >/dev/null || needed=5
  mkdir -p "$state"
  free=$(($(df --output=avail -B1 "$state" | tail -n 1) / 1000000000))
  ((free >= needed)) ||
    refuse "$free GB are free below $cache_dir, but the node and its images need $needed GB" \
      "Free some space, or set XDG_CACHE_HOME to a larger disk. 'hack/node/down --purge' removes images of earlier runs."
}

need_namespaces_and_overlayfs() {
  unshare --mount --net --pid --fork true 2>/dev/null ||
    refuse "this root user may not create namespaces; it is probably root in an unprivileged container" "Use a machine or a privileged container, or Docker and kind."
  unshare --net ip link add name wire0 type veth peer name wire1 2>/dev/null ||
    refuse "this kernel has no virtual network devices (veth), which connect the node and its pods" "Try 'modprobe veth', or use Docker and kind."
  local trial
  mkdir -p "$state"
  trial=$(mktemp -d "$state/trial.XXXX")
  # shellcheck disable=SC2016 # the inner bash's own $0
  unshare --mount bash -c '
    mount -t tmpfs tmpfs /mnt && mkdir /mnt/merged "$0"/{lower,upper,work} &&
    mount -t overlay overlay -o "lowerdir=$0/lower,upperdir=$0/upper,workdir=$0/work" /mnt/merged' "$trial" 2>/dev/null || {
    rm -rf "$trial"
    refuse "no overlayfs on $state, which is on $(stat -f -c %T "$state")" \
      "Containers need it: try 'modprobe overlay', or set XDG_CACHE_HOME to a folder on ext4 or xfs (an overlayfs cannot hold another)."
  }
  rm -rf "$trial"
}

need_own_cgroup() {
  local root trial
  for root in $(cgroup_roots); do
    [ ! -d "$root/$cgroup" ] || continue
    trial=$root/$cgroup.$BASHPID
    { mkdir "$trial" && rmdir "$trial"; } 2>/dev/null ||
      refuse "cannot create a cgroup in $root; the node needs its own" \
        "If this is a container, start it with --privileged or with a writable /sys/fs/cgroup; else use Docker and kind."
  done
}

need_free_network() {
  local taken
  taken=$(ip -4 route show root "$network" | grep -v " dev $link " || true)
  [ -z "$taken" ] || refuse "the node's addresses $network are in use on this machine: $taken" "Remove that route, or change the addresses in hack/node/lib/settings.sh."
}
