#!/usr/bin/env bash
# Makes a container image of this machine's own Redis, so that the tests can run over testcontainers where no registry
# can be reached. It prints the image's name, which is for RELAY_TEST_REDIS_IMAGE:
#
#   RELAY_TEST_REDIS_IMAGE=$(tests/support/redis-image.sh) cargo test --test it store_contract
#
# A Docker daemon is started if none answers, and stays. Without Docker or Redis: exit code 1 and one sentence.
set -euo pipefail

name=${1:-relay-test-redis:7}

fail() {
  echo "no image of Redis: $*" >&2
  exit 1
}

answers() {
  docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

# The daemon is ready when it says so; it is not waited for if it has ended.
start_daemon() {
  [ "$(id -u)" = 0 ] || fail "no Docker daemon answers, and only root can start one"
  command -v dockerd >/dev/null || fail "no Docker daemon answers, and there is no dockerd to start (Debian: docker.io)"
  local log=${TMPDIR:-/tmp}/relay-test-dockerd.log
  setsid dockerd >"$log" 2>&1 </dev/null &
  local daemon=$! deadline=$((SECONDS + 30))
  until answers; do
    kill -0 "$daemon" 2>/dev/null || fail "dockerd ended: $(tail -n 1 "$log")"
    [ "$SECONDS" -lt "$deadline" ] || fail "dockerd did not answer within 30 s: $(tail -n 1 "$log")"
    sleep 0.2
  done
}

command -v docker >/dev/null || fail "there is no docker (Debian: docker.io)"
server=$(command -v redis-server) || fail "there is no redis-server (Debian: redis-server)"
answers || start_daemon

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/data" "$root/etc" "$root/tmp"
chmod 1777 "$root/data" "$root/tmp"
echo 'root:x:0:0::/:' >"$root/etc/passwd"
# The programs, and the libraries that the loader names, at the places where it looks for them.
for program in "$server" "$(command -v redis-cli || true)"; do
  [ -n "$program" ] || continue
  install -D "$(readlink -f "$program")" "$root/usr/bin/$(basename "$program")"
  ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
    [ -e "$root$library" ] || install -D "$(readlink -f "$library")" "$root$library"
  done
done
tar -C "$root" -c . | docker import \
  --change 'WORKDIR /data' \
  --change 'EXPOSE 6379' \
  --change 'CMD ["redis-server", "--protected-mode", "no", "--save", ""]' \
  - "$name" >/dev/null || fail "docker import failed"
echo "$name"
