# shellcheck shell=bash
# Words for people, on stderr: stdout belongs to what a caller reads. Set `speaker` before use, and
# `trap 'failed_step $?' EXIT`, so that a step that fails is named.

doing=

# say TEXT: one line of progress.
say() { echo "$speaker: $*" >&2; }

# step TEXT COMMAND…: runs COMMAND, then says how long it took.
step() {
  local began=${EPOCHREALTIME/[.,]/}
  doing=$1
  shift
  "$@"
  local took=$(((${EPOCHREALTIME/[.,]/} - began) / 100000))
  say "$doing: $((took / 10)).$((took % 10)) s"
  doing=
}

# failed_step STATUS: for the EXIT trap; names the step that STATUS ended, if one was on.
failed_step() { [ -z "$doing" ] || say "$doing: failed (exit $1); the lines above say why"; }

# refuse WHAT HINT: what is missing and what to do about it; exit 2, as everywhere in the project for bad input.
refuse() {
  doing=
  echo "$speaker: $1" >&2
  echo "  $2" >&2
  exit 2
}
