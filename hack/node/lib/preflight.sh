# shellcheck shell=bash
# What must be true before a node is started, each with words about what to do. Nothing is changed here.

need_root() {
  [ "$(id -u)" = 0 ] || refuse "this needs root: a node mounts, makes network devices and runs containers" "Run it as root, for example with sudo."
}

need_linux() {
  [ "$(uname -s)" = Linux ] || refuse "a node of its own needs Linux; this is $(uname -s)" "Use Docker and kind here: ./kind-setup.sh --provider kind"
}

# The node has its own /run, /var/lib and /var/log: a cache below one of them could not be seen from inside.
need_visible_cache() {
  case $(realpath -m "$cache_dir")/ in
  /run/* | /var/run/* | /var/lib/* | /var/log/*)
    refuse "the cache folder $cache_dir is below a folder that the node has its own of" "Set XDG_CACHE_HOME to a folder outside of /run, /var/lib and /var/log."
    ;;
  esac
}

# 30 GB for the worker image: built, in the registry, and unpacked. Once it is there, room for the pods is enough.
need_disk() {
  local needed=30 free
  ! compgen -G "$state/lib/registry/docker/registry/v2/repositories/ddpm-ray-worker/_manifests/tags/*" >/dev/null || needed=5
  mkdir -p "$state"
  free=$(($(df --output=avail -B1 "$state" | tail -n 1) / 1000000000))
  ((free >= needed)) ||
    refuse "$free GB are free below $cache_dir, and the node and its images need $needed GB" \
      "Make room, or set XDG_CACHE_HOME to a larger disk. 'hack/node/down --purge' removes images of earlier runs, podman's too."
}

need_namespaces_and_overlayfs() {
  unshare --mount --net --pid --fork true 2>/dev/null ||
    refuse "this root may not make namespaces, so it is probably root in an unprivileged container" "Use a machine or a privileged container, or Docker and kind."
  unshare --net ip link add name wire0 type veth peer name wire1 2>/dev/null ||
    refuse "this kernel makes no virtual wires (veth), by which the node and its pods are reached" "Try 'modprobe veth', or use Docker and kind."
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
      refuse "no cgroup can be made in $root, and every process of the node is in one of its own" \
        "In a container, start that with --privileged, or mount /sys/fs/cgroup so that it may be written; else use Docker and kind."
  done
}

need_free_network() {
  local taken
  taken=$(ip -4 route show root "$network" | grep -v " dev $link " || true)
  [ -z "$taken" ] || refuse "the node's addresses $network are in use here: $taken" "Remove that route, or change the addresses in hack/node/lib/settings.sh."
}
