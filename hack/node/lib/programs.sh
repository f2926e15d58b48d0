# shellcheck shell=bash
# The programs that are built from Go modules: their folders, and how they are built.

programs_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../programs" && pwd)
# The groups that `up` needs. Scripts that use another group build it themselves.
node_groups=(kubernetes coredns local-path-provisioner registry s3)

program_groups() { find "$programs_dir" -mindepth 2 -maxdepth 2 -name go.mod -printf '%h\n' | xargs -n1 basename | sort; }

# program_bin GROUP: prints the folder of its programs. Its name has a hash of the pinned versions, so that a changed pin
# is built beside the old one.
program_bin() {
  local pins
  pins=$(cd "$programs_dir/$1" && { uname -m && cat go.mod go.sum && find . -name '*.go' -exec cat {} +; } | sha256sum)
  echo "$cache_dir/$1-${pins:0:12}/bin"
}

# program_path GROUP…: prints their folders, separated as in $PATH.
program_path() {
  local group
  for group in "$@"; do program_bin "$group"; done | paste -sd:
}

# pin GROUP MODULE: prints the version in go.mod, such as v1.2.3.
pin() { awk -v module="$2" '$1 == module && $2 ~ /^v/ {print $2; exit}' "$programs_dir/$1/go.mod"; }

# need_go GROUP…: refuses if Go cannot build the groups that are not built yet. Go 1.21 and later can download the
# toolchain that go.mod requires; in the group's folder, `go version` prints the version that would be used.
need_go() {
  local group needed found
  for group in "$@"; do
    [ ! -d "$(program_bin "$group")" ] || continue
    command -v go >/dev/null ||
      refuse "no Go found; it builds the node's programs ($group)" "Install Go $(newest_go) or newer (https://go.dev/dl) and put it on PATH."
    needed=$(go_line "$group")
    found=$(cd "$programs_dir/$group" && go version 2>&1 | grep -oE 'go[0-9]+(\.[0-9]+)*' | head -n 1) || found=go0
    printf '%s\n%s\n' "$needed" "${found#go}" | sort -CV ||
      refuse "$found is too old: $group needs Go $needed" "Install Go $(newest_go) or newer (https://go.dev/dl) and put it first on PATH."
  done
}

go_line() { awk '$1 == "go" {print $2; exit}' "$programs_dir/$1/go.mod"; }
newest_go() { awk '$1 == "go" {print $2}' "$programs_dir"/*/go.mod | sort -V | tail -n 1; }

build_group() {
  local group=$1 bin
  bin=$(program_bin "$group")
  [ ! -d "$bin" ] || return 0
  need_go "$group"
  say "building $group; with a cold Go cache this may take minutes"
  mkdir -p "${bin%/bin}"
  step "built $group" install_tools "$group" "$bin"
}

# Builds into a temporary folder and renames it, so that an interrupted build does not look complete. Under a lock.
install_tools() {
  local group=$1 bin=$2
  (
    flock 9
    [ ! -d "$bin" ] || exit 0
    cd "$programs_dir/$group" || exit
    rm -rf "$bin.part"
    CGO_ENABLED=0 GOBIN=$bin.part go install -trimpath -tags "$(build_tags "$group")" -ldflags "$(linker_flags "$group")" tool >&2
    keep_files "$group" "${bin%/bin}"
    mv "$bin.part" "$bin"
  ) 9>"${bin%/bin}/lock"
}

# build_tags GROUP: builds Prometheus with service discovery for Kubernetes only; that of the clouds would cost minutes.
build_tags() { [ "$1" != prometheus ] || echo remove_all_sd,enable_kubernetes_sd; }

# linker_flags GROUP: sets the version of Kubernetes, as its release builds do; otherwise the API server reports v0.0.0.
linker_flags() {
  local version minor
  if [ "$1" = kubernetes ]; then
    version=$(pin kubernetes k8s.io/kubernetes)
    minor=${version#*.}
    printf -- '-X k8s.io/component-base/version.%s ' "gitVersion=$version" gitMajor=1 "gitMinor=${minor%%.*}"
  fi
  echo "-s -w"
}

# keep_files GROUP FOLDER: copies files of the module that are needed at run time, so that the module cache may be deleted.
keep_files() {
  case $1 in
  kuberay) keep_folder "$2" github.com/ray-project/kuberay/ray-operator config ;; # CRDs, RBAC and Deployment
  kueue) keep_folder "$2" sigs.k8s.io/kueue config ;;                             # the same, and webhooks
  kwok) keep_folder "$2" sigs.k8s.io/kwok kustomize/stage ;;                      # the life cycle of fake nodes and pods
  esac
}

keep_folder() {
  local module
  module=$(go list -m -f '{{.Dir}}' "$2")
  rm -rf "${1:?}/$(basename "$3")"
  cp -r --no-preserve=mode "$module/$3" "$1/"
}
