#!/usr/bin/env bash
# Looks for the programs that tests and lints need, and installs those that are missing from Debian's packages:
#
#   tools.sh check GROUP      names what is missing and how to get it, and exits with 1
#   tools.sh install GROUP    installs it, with sudo unless it runs as root
#
# GROUP: test (all that `make test` needs) and its parts helm and deploy; image and compose (deploy/tests/run.sh); lint.
# CHROMIUM names another browser than Debian's.
set -euo pipefail
action=$1 group=$2

has() { command -v "$1" >/dev/null; }

wanted=()
# need PACKAGE... -- COMMAND...: the packages are missing if the command fails.
need() {
  local packages=()
  while [ "$1" != -- ]; do packages+=("$1"); shift; done
  "${@:2}" 2>/dev/null || wanted+=("${packages[@]}")
}

need_node() { need nodejs npm -- has npm; }
need_python() { need python3 python3-venv -- python3 -c 'import ensurepip, venv'; }

case $group in
  test)
    need redis-server -- has redis-server
    need faketime -- has faketime
    need chromium fonts-liberation -- test -x "${CHROMIUM:-/usr/bin/chromium}"
    need haproxy -- has haproxy
    need prometheus -- has prometheus
    need openssl -- has openssl
    need_python
    need_node
    # Elsewhere the tests that use containers are left out where no Docker answers.
    [ -z "${CI:-}" ] || need docker.io -- has dockerd
    ;;
  helm)
    need redis-server -- has redis-server
    need openssl -- has openssl
    need_python
    need_node
    ;;
  deploy)
    need redis-server -- has redis-server
    need haproxy -- has haproxy
    need prometheus -- has prometheus
    need_node
    ;;
  image)
    need redis-server -- has redis-server
    need docker.io -- has dockerd
    need_node
    ;;
  compose)
    need redis-server -- has redis-server
    need docker.io -- has dockerd
    need_node
    need haproxy -- has haproxy
    need prometheus -- has prometheus
    need docker-compose -- has docker-compose
    need busybox-static -- has busybox
    ;;
  lint)
    need_python
    need_node
    ;;
  *) echo "unknown group \"$group\": expected test, helm, deploy, image, compose or lint" >&2; exit 2 ;;
esac

if [ ${#wanted[@]} -gt 0 ]; then
  case $group in
    lint) by="make install-lint-tools" ;;
    image | compose) by="tests/support/tools.sh install $group" ;;
    *) by="make install-test-tools" ;;
  esac
  if [ "$action" != install ]; then
    echo "missing Debian packages: ${wanted[*]}; install them with: $by" >&2
    exit 1
  fi
  has apt-get || { echo "no apt-get here: install ${wanted[*]} by your own means" >&2; exit 1; }
  sudo=(); [ "$(id -u)" = 0 ] || sudo=(sudo)
  echo "installing ${wanted[*]}"
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
fi

recent='const [major, minor] = process.versions.node.split("."); process.exit(major > 20 || (major == 20 && minor >= 19) ? 0 : 1)'
node -e "$recent" || { echo "Node.js $(node --version) is too old: the client's tests need 20.19 or later" >&2; exit 1; }
