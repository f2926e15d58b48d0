# shellcheck shell=bash
# Sourced by every shim: records the call, and fails it if it matches the pattern in the file `fails`.
line="$(basename "$0") $*"
echo "$line" >>"$MACHINE/calls"
if [ -s "$MACHINE/fails" ] && [[ $line == $(<"$MACHINE/fails") ]]; then
  echo "shim: made to fail" >&2
  exit 1
fi
state=$MACHINE/state
mkdir -p "$state"
