# Words for people, on stderr: stdout belongs to what a caller reads.

# say TEXT: one line of progress.
say() { echo "node: $*" >&2; }

# step TEXT COMMAND…: runs COMMAND, then says how long it took.
step() {
  local what=$1 began=${EPOCHREALTIME/[.,]/}
  shift
  "$@"
  local took=$(((${EPOCHREALTIME/[.,]/} - began) / 100000))
  say "$what: $((took / 10)).$((took % 10)) s"
}

# refuse WHAT HINT: what is missing and what to do about it; exit 2, as everywhere in the project for bad input.
refuse() {
  echo "node: $1" >&2
  echo "      $2" >&2
  exit 2
}
