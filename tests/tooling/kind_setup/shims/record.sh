# shellcheck shell=bash
# Sourced by every shim: writes the call down; fails where the test says so (the file `fails` holds a pattern).
line="$(basename "$0") $*"
echo "$line" >>"$MACHINE/calls"
if [ -s "$MACHINE/fails" ] && [[ $line == $(<"$MACHINE/fails") ]]; then
  echo "shim: made to fail" >&2
  exit 1
fi
state=$MACHINE/state
mkdir -p "$state"
