#!/usr/bin/env bash
# Tries out the files of the folder above: `run.sh` on processes of this machine (run.mjs), `run.sh image` the image in
# containers (image.mjs), `run.sh rolling` an update under load (rolling.mjs). It installs what it needs and is not there,
# from Debian's packages. RELAY_BIN names the relay's program; without it the one that cargo has built is taken.
set -euo pipefail
cd "$(dirname "$0")/../.."

wanted=()
for program in redis-server haproxy prometheus promtool; do
  command -v "$program" >/dev/null || wanted+=("${program/promtool/prometheus}")
done
if [ ${#wanted[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || { echo "The tests need: ${wanted[*]}. Install them, then try again." >&2; exit 1; }
  sudo=""; [ "$(id -u)" = 0 ] || sudo=sudo
  echo "installing ${wanted[*]}"
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
fi
# The clients of the test are those that users have.
[ -d sdk/node_modules/ws ] || (cd sdk && npm ci --no-audit --no-fund)
[ -f sdk/dist/index.js ] || (cd sdk && npm run build)

exec node "deploy/tests/${1:-run}.mjs" "${@:2}"
