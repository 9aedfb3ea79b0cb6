#!/usr/bin/env bash
# Makes a container image of this machine's own Redis, so that the tests can run over testcontainers where no registry
# can be reached. It prints the image's name, which is for RELAY_TEST_REDIS_IMAGE:
#
#   RELAY_TEST_REDIS_IMAGE=$(tests/support/redis-image.sh) cargo test --test it store_contract
#
# A Docker daemon is started if none answers, and stays. Without Docker or Redis: exit code 1 and one sentence.
set -euo pipefail

name=${1:-relay-test-redis:7}

"$(dirname "$0")/docker.sh"
server=$(command -v redis-server) || { echo "no image of Redis: there is no redis-server (Debian: redis-server)" >&2; exit 1; }

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/data" "$root/etc" "$root/tmp"
chmod 1777 "$root/data" "$root/tmp"
printf '%s\n' 'root:x:0:0::/:' 'redis:x:999:999::/data:' >"$root/etc/passwd"
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
  - "$name" >/dev/null || { echo "no image of Redis: docker import failed" >&2; exit 1; }
echo "$name"
