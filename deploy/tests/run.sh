#!/usr/bin/env bash
# Tests the files of the parent folder:
#
#   run.sh            everything except the image, with processes of this machine (run.mjs)
#   run.sh rolling    an update under load, also with processes (rolling.mjs)
#   run.sh image      the image, in containers (image.mjs)
#   run.sh compose    compose.yaml, in containers (compose.mjs)
#
# The script installs missing programs from Debian's packages. RELAY_BIN names the relay's program, which must be static
# for containers; the default is cargo's build.
set -euo pipefail
cd "$(dirname "$0")/../.."
test=${1:-run}

# program=package
case $test in
  image) needs=(redis-server=redis-server dockerd=docker.io) ;;
  compose) needs=(redis-server=redis-server dockerd=docker.io docker-compose=docker-compose haproxy=haproxy
    prometheus=prometheus busybox=busybox-static) ;;
  *) needs=(redis-server=redis-server haproxy=haproxy prometheus=prometheus) ;;
esac
wanted=()
for need in "${needs[@]}"; do
  command -v "${need%=*}" >/dev/null || wanted+=("${need#*=}")
done
if [ ${#wanted[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || { echo "The tests need these packages: ${wanted[*]}. Install them and try again." >&2; exit 1; }
  sudo=""; [ "$(id -u)" = 0 ] || sudo=sudo
  echo "installing ${wanted[*]}"
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
fi
# The tests use the published form of the client.
[ -d sdk/node_modules/ws ] || (cd sdk && npm ci --no-audit --no-fund)
[ -f sdk/dist/index.js ] || (cd sdk && npm run build)

exec node "deploy/tests/$test.mjs" "${@:2}"
