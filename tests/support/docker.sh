#!/usr/bin/env bash
# Makes sure that a Docker daemon answers: one that does not run is started, and stays. Exit code 1 and one sentence if
# there can be none.
set -euo pipefail

fail() {
  echo "no Docker here: $*" >&2
  exit 1
}

answers() {
  docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

command -v docker >/dev/null || fail "there is no docker (Debian: docker.io)"
answers && exit 0
[ "$(id -u)" = 0 ] || fail "no daemon answers, and only root can start one"
command -v dockerd >/dev/null || fail "no daemon answers, and there is no dockerd to start (Debian: docker.io)"

log=${TMPDIR:-/tmp}/relay-test-dockerd.log
setsid dockerd >"$log" 2>&1 </dev/null &
daemon=$!
deadline=$((SECONDS + 30))
until answers; do
  kill -0 "$daemon" 2>/dev/null || fail "dockerd ended: $(tail -n 1 "$log")"
  [ "$SECONDS" -lt "$deadline" ] || fail "dockerd did not answer within 30 s: $(tail -n 1 "$log")"
  sleep 0.2
done
