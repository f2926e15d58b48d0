# shellcheck shell=bash
# The container engine: docker where one answers, else podman with a store of its own, apart from the user's. For the
# cluster of hack/node it is podman always: docker speaks plain HTTP to a registry of this machine's loopback alone.

cache_dir=${XDG_CACHE_HOME:-$HOME/.cache}/ddpm-ray

docker_answers() { command -v docker >/dev/null && docker info --format '{{.ServerVersion}}' >/dev/null 2>&1; }

# choose_engine [PLACE]: sets `engine` to docker or podman, whichever can bring an image to that place.
choose_engine() {
  if [ "${1:-}" != node ] && docker_answers; then
    engine=docker
  elif command -v podman >/dev/null; then
    [ "$(id -u)" = 0 ] || refuse "podman builds images as root only here" "Run it as root, or start a Docker engine."
    command -v runc >/dev/null || refuse "no runc, which podman starts containers with" "Install it: apt-get install runc"
    engine=podman
  else
    refuse "neither a Docker engine that answers nor podman" "Start Docker, or, as root on Debian: apt-get install podman runc"
  fi
}

# pod: podman on its own store. crun refuses hybrid cgroups, so runc it is. In a mount namespace of its own: a build that
# is killed leaves no mounts on this machine.
pod() { unshare --mount podman --root "$cache_dir/podman/store" --runroot "$cache_dir/podman/run" --runtime runc "$@"; }

# engine_build ARGUMENTS…: `docker build`, or podman's within the limits that this process may pass on. Its many words
# go to a log, of which the end is shown if it fails.
engine_build() {
  local log=$cache_dir/image-build.log
  mkdir -p "$cache_dir"
  run_build "$@" >"$log" 2>&1 || {
    tail -n 30 "$log" >&2
    say "the whole build is in $log"
    return 1
  }
}

run_build() {
  if [ "$engine" = docker ]; then
    DOCKER_BUILDKIT=1 docker build "$@"
    return
  fi
  pod_limits
  pod build --network host "${limits[@]}" "$@"
}

# pod_limits: sets `limits` to what this process may pass on. podman lowers its own process limit to pid_max; a
# container's may not be higher.
pod_limits() {
  local files processes pids
  files=$(ulimit -Hn) processes=$(ulimit -Hu) pids=$(</proc/sys/kernel/pid_max)
  [ "$processes" != unlimited ] && [ "$processes" -lt "$pids" ] || processes=$pids
  limits=(--ulimit "nofile=$files:$files" --ulimit "nproc=$processes:$processes")
}

# engine_run IMAGE COMMAND…: in a container without network, with this standard input.
engine_run() {
  if [ "$engine" = docker ]; then
    docker run --rm --interactive --network none "$@"
  else
    pod_limits
    pod run --rm --interactive --network none "${limits[@]}" "$@"
  fi
}

engine_has() {
  if [ "$engine" = docker ]; then docker image inspect "$1" >/dev/null 2>&1; else pod image exists "$1"; fi
}

# engine_inspect IMAGE: its labels, and how many bytes it has unpacked, as JSON.
engine_inspect() {
  local run=docker
  [ "$engine" = docker ] || run=pod
  "$run" image inspect --format '{"labels": {{json .Config.Labels}}, "size": {{.Size}}}' "$1"
}

# engine_push IMAGE REFERENCE [plain]: only the layers that the registry lacks travel.
# plain: over HTTP, which docker does by itself for localhost.
engine_push() {
  if [ "$engine" = docker ]; then
    docker tag "$1" "$2"
    docker push --quiet "$2" >&2
    docker image rm "$2" >/dev/null # the name alone
  else
    pod push --quiet --compression-format zstd ${3:+--tls-verify=false} "$1" "docker://$2" >&2
  fi
}

# engine_tidy IMAGE: removes those of older trees, whose names differ in the hash, the last 12 characters, alone; and from
# podman's own store what no tag stands on.
engine_tidy() {
  local run=docker old
  [ "$engine" = docker ] || run=pod
  "$run" image ls --filter "reference=${1%????????????}*" --format '{{.Repository}}:{{.Tag}}' | awk -F: -v keep="${1##*:}" '$NF != keep' |
    while read -r old; do "$run" image rm "$old" >/dev/null; done
  [ "$engine" = docker ] || pod image prune --force >/dev/null
}
