# shellcheck shell=bash
# Progress and errors, as in hack/images; and waiting.

log_prefix=node
source "$(dirname "${BASH_SOURCE[0]}")/../../images/lib/say.sh"

# wait_for SECONDS COMMAND…: repeats COMMAND until it succeeds; fails at the deadline.
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}
