# shellcheck shell=bash
# The container engine: docker if one responds, else podman with its own store, separate from the user's. For the
# cluster of hack/node always podman: docker accepts plain HTTP registries on the loopback interface only.

cache_dir=${XDG_CACHE_HOME:-$HOME/.cache}/ddpm-ray

docker_responds() { command -v docker >/dev/null && docker info --format '{{.ServerVersion}}' >/dev/null 2>&1; }

# choose_engine [TARGET]: sets `engine` to docker or podman, depending on which can push images to the target.
choose_engine() {
  if [ "${1:-}" != node ] && docker_responds; then
    engine=docker
  elif command -v podman >/dev/null; then
    [ "$(id -u)" = 0 ] || refuse "building with podman needs root" "Run this as root, or start a Docker engine."
    command -v runc >/dev/null || refuse "runc is not installed; podman starts containers with it" "Install it: apt-get install runc"
    engine=podman
  else
    refuse "found neither a running Docker engine nor podman" "Start Docker, or, as root on Debian: apt-get install podman runc"
  fi
}

# own_podman: podman with its own store. With runc, because crun refuses hybrid cgroups. In its own mount namespace, so
# that a killed build leaves no mounts on this machine.
own_podman() { unshare --mount podman --root "$cache_dir/podman/store" --runroot "$cache_dir/podman/run" --runtime runc "$@"; }

# engine_build ARGUMENTS…: runs `docker build` or `podman build`. The output goes to a log; its end is printed on failure.
engine_build() {
  local log=$cache_dir/image-build.log
  mkdir -p "$cache_dir"
  run_build "$@" >"$log" 2>&1 || {
    tail -n 30 "$log" >&2
    say "the full build log is $log"
    return 1
  }
}

run_build() {
  if [ "$engine" = docker ]; then
    DOCKER_BUILDKIT=1 docker build "$@"
    return
  fi
  podman_limits
  own_podman build --network host "${limits[@]}" "$@"
}

# podman_limits: sets `limits` to this process's hard limits. podman lowers its own process limit to pid_max, and a
# container's limit must not exceed that.
podman_limits() {
  local files processes pids
  files=$(ulimit -Hn) processes=$(ulimit -Hu) pids=$(</proc/sys/kernel/pid_max)
  [ "$processes" != unlimited ] && [ "$processes" -lt "$pids" ] || processes=$pids
  limits=(--ulimit "nofile=$files:$files" --ulimit "nproc=$processes:$processes")
}

# engine_run IMAGE COMMAND…: runs a command in a container without network, with this standard input.
engine_run() {
  if [ "$engine" = docker ]; then
    docker run --rm --interactive --network none "$@"
  else
    podman_limits
    own_podman run --rm --interactive --network none "${limits[@]}" "$@"
  fi
}

engine_has() {
  if [ "$engine" = docker ]; then docker image inspect "$1" >/dev/null 2>&1; else own_podman image exists "$1"; fi
}

# engine_inspect IMAGE: prints its labels and its unpacked size in bytes as JSON.
engine_inspect() {
  local run=docker
  [ "$engine" = docker ] || run=own_podman
  "$run" image inspect --format '{"labels": {{json .Config.Labels}}, "size": {{.Size}}}' "$1"
}

# engine_push IMAGE REFERENCE [plain]: pushes the layers that the registry lacks.
# plain: over HTTP; docker uses that for localhost anyway.
engine_push() {
  if [ "$engine" = docker ]; then
    docker tag "$1" "$2"
    docker push --quiet "$2" >&2
    docker image rm "$2" >/dev/null # only the extra tag
  else
    own_podman push --quiet --compression-format zstd ${3:+--tls-verify=false} "$1" "docker://$2" >&2
  fi
}

# engine_remove_old_images IMAGE: removes images that differ from this one in the hash only (the last 12 characters), and
# untagged images from podman's own store.
engine_remove_old_images() {
  local run=docker old
  [ "$engine" = docker ] || run=own_podman
  "$run" image ls --filter "reference=${1%????????????}*" --format '{{.Repository}}:{{.Tag}}' | awk -F: -v keep="${1##*:}" '$NF != keep' |
    while read -r old; do "$run" image rm "$old" >/dev/null; done
  [ "$engine" = docker ] || own_podman image prune --force >/dev/null
}
