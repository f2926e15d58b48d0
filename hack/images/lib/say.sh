# shellcheck shell=bash
# Progress and errors, on stderr: stdout is for results that callers read. Scripts set `log_prefix` before use, and
# `trap 'report_failed_step $?' EXIT`, so that a failing step is named.

current_step=

# say TEXT: prints one line of progress.
say() { echo "$log_prefix: $*" >&2; }

# step TEXT COMMAND…: runs COMMAND, then prints TEXT and how long it took.
step() {
  local start=${EPOCHREALTIME/[.,]/}
  current_step=$1
  shift
  "$@"
  local tenths=$(((${EPOCHREALTIME/[.,]/} - start) / 100000))
  say "$current_step: $((tenths / 10)).$((tenths % 10)) s"
  current_step=
}

# report_failed_step STATUS: for the EXIT trap; names the step that was running, if any.
report_failed_step() { [ -z "$current_step" ] || say "$current_step: failed (exit $1), see the lines above"; }

# refuse PROBLEM HINT: prints what is wrong and what to do about it, and exits with 2, the project's code for bad input.
refuse() {
  current_step=
  echo "$log_prefix: $1" >&2
  echo "  $2" >&2
  exit 2
}
