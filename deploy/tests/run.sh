#!/usr/bin/env bash
# Tests the files of the parent folder:
#
#   run.sh            everything except the image, with processes of this machine (run.mjs)
#   run.sh rolling    an update under load, also with processes (rolling.mjs)
#   run.sh image      the image, in containers (image.mjs)
#   run.sh compose    compose.yaml, in containers (compose.mjs)
#
# Packages that they need and that are missing are named, with the command that installs them. RELAY_BIN names the relay,
# for containers a static one; without it the one that cargo has built is run.
set -euo pipefail
cd "$(dirname "$0")/../.."
test=${1:-run}

case $test in
  image | compose) tests/support/tools.sh check "$test" ;;
  *) tests/support/tools.sh check deploy ;;
esac
# The clients of the tests are those that users have.
[ -d sdk/node_modules/ws ] || (cd sdk && npm ci --no-audit --no-fund)
[ -f sdk/dist/index.js ] || (cd sdk && npm run build)

exec node "deploy/tests/$test.mjs" "${@:2}"
