# The programs built from Go modules: where a group lies once built, and how it is built.

programs_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../programs" && pwd)
cache_dir=${XDG_CACHE_HOME:-$HOME/.cache}/ddpm-ray

program_groups() { find "$programs_dir" -mindepth 2 -maxdepth 2 -name go.mod -printf '%h\n' | xargs -n1 basename | sort; }

# program_bin GROUP: the folder of its programs, keyed by its pins, so that a changed pin is built beside the old one.
program_bin() {
  local pins
  pins=$(cd "$programs_dir/$1" && { uname -m && cat go.mod go.sum; } | sha256sum)
  echo "$cache_dir/$1-${pins:0:12}/bin"
}

# pin GROUP MODULE: the version that go.mod holds, as v1.2.3.
pin() { awk -v module="$2" '$1 == "require" {$1 = ""; $0 = $0} $1 == module && $2 ~ /^v/ {print $2; exit}' "$programs_dir/$1/go.mod"; }

# linker_flags GROUP: each project stamps its version in its own release build; without it `kubectl version` says v0.0.0.
linker_flags() {
  local version minor
  case $1 in
  kubernetes)
    version=$(pin kubernetes k8s.io/kubernetes) minor=${version#*.}
    printf -- '-X k8s.io/component-base/version.%s ' "gitVersion=$version" gitMajor=1 "gitMinor=${minor%%.*}"
    ;;
  esac
  echo "-s -w"
}

build_group() {
  local group=$1 bin
  bin=$(program_bin "$group")
  [ -d "$bin" ] && return
  command -v go >/dev/null ||
    refuse "no Go, which builds the node's programs ($group)" "Install Go 1.26 or newer (https://go.dev/dl) and put it on PATH."
  say "building $group; from a cold Go cache this may take minutes"
  step "built $group" install_tools "$group" "$bin"
}

# Into a folder beside it, then renamed: an interrupted build leaves nothing that looks built.
install_tools() {
  local group=$1 bin=$2
  rm -rf "$bin.part"
  mkdir -p "$bin.part"
  (cd "$programs_dir/$group" && CGO_ENABLED=0 GOBIN=$bin.part go install -trimpath -ldflags "$(linker_flags "$group")" tool) >&2
  mv "$bin.part" "$bin"
}
