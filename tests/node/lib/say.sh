# shellcheck shell=bash
# Words for people, on stderr: stdout belongs to what a caller reads.

# say TEXT: one line of progress.
say() { echo "node: $*" >&2; }

# step TEXT COMMAND…: runs COMMAND, then says how long it took.
step() {
  local what=$1 began=${EPOCHREALTIME/[.,]/} took
  shift
  "$@"
  took=$(((${EPOCHREALTIME/[.,]/} - began) / 100000))
  say "$what: $((took / 10)).$((took % 10)) s"
}

# refuse WHAT HINT: what is missing and what to do about it; exit 2, as everywhere in the project for bad input.
refuse() {
  echo "node: $1" >&2
  echo "      $2" >&2
  exit 2
}

# wait_for SECONDS COMMAND…: asks until COMMAND succeeds; fails at the deadline.
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}
