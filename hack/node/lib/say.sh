# shellcheck shell=bash
# Words for people, as hack/images has them, and waiting.

speaker=node
source "$(dirname "${BASH_SOURCE[0]}")/../../images/lib/say.sh"

# wait_for SECONDS COMMAND…: asks until COMMAND succeeds; fails at the deadline.
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}
