#!/usr/bin/env bash
# Tries the chart on a real cluster, in a namespace of its own at Pod Security level "restricted", and prints a table.
#
#   IMAGE        the relay's image, with a tag, that the cluster can pull or has
#   REDIS_IMAGE  the bundled Redis's image, with a tag (redis:7)
#   OLD_IMAGE    the image for the last release's chart (IMAGE)
#   HELM_MAJOR   3 or 4: Helm as `make test-helm` fetched it, instead of the one in PATH
#   KEEP         if set, the namespace is not removed
#
# Functions are run by name, each in a shell of its own with a limit:
# shellcheck disable=SC2329
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../../.. && pwd)
tools=$root/target/helm-tests
chart=$root/helm/gitorial-relay
name=relay-gitorial-relay
watchers=3

stop() {
  printf '%s\n' "$1" >&2
  exit 1
}

if [ -n "${HELM_MAJOR:-}" ]; then PATH=$tools/helm$HELM_MAJOR/helm:$PATH; fi
PATH=$PATH:$tools/helm4/helm:$tools/helm4/kubectl
command -v kubectl >/dev/null || stop "kubectl is missing: install it, or let make test-helm fetch it."
command -v helm >/dev/null || stop "Helm is missing: install it, or let make test-helm fetch it."
kubectl --request-timeout=10s get --raw /version >/dev/null 2>&1 ||
  stop "No cluster is given: set KUBECONFIG to the file of a cluster that answers and where this test may create a namespace."
image=${IMAGE:-}
case ${image##*/} in
  ?*:?*) ;;
  *) stop "No image is given: set IMAGE to an image of the relay with its tag, as in registry.example.org/gitorial-relay:0.1.0." ;;
esac

space=gitorial-relay-test-$$
log=$root/target/test-cluster.log
work=$(mktemp -d)
mkdir -p "$root/target"
: > "$log"
redis=${REDIS_IMAGE:-redis:7}
old_image=${OLD_IMAGE:-$IMAGE}
export chart name watchers space work redis IMAGE old_image

clean_up() {
  if [ -z "${KEEP:-}" ]; then
    timeout 60 kubectl delete namespace "$space" --wait=false >> "$log" 2>&1 || true
  fi
  rm -rf "$work"
}
trap clean_up EXIT

k() { kubectl --namespace "$space" "$@"; }
h() { helm --namespace "$space" "$@"; }
images() { echo --set-string "image.repository=${1%:*},image.tag=${1##*:},redis.bundled.image.repository=${redis%:*},redis.bundled.image.tag=${redis##*:}"; }
change() { h upgrade relay "$chart" --reset-then-reuse-values --timeout 5m "$@"; }
api() { echo "/api/v1/namespaces/$space/services/$name:http/proxy/api/sessions"; }

# All watchers are in the session, and none of them had to start again.
watched() {
  local session=$1 restarts=$2 found=
  for _ in $(seq 60); do
    found=$(k get --raw "$(api)/$session" 2>/dev/null | sed -n 's/.*"clientCount":\([0-9]*\).*/\1/p' || true)
    if [ "$found" = "$watchers" ]; then break; fi
    sleep 1
  done
  [ "$found" = "$watchers" ] || { echo "the session has ${found:-no} clients of $watchers"; return 1; }
  [ "$(restarted)" = "$restarts" ] || { echo "a client lost its session"; return 1; }
}
restarted() { k get pod watchers --output 'jsonpath={.status.containerStatuses[*].restartCount}'; }
begin_load() {
  k create --raw "$(api)" --filename - <<< '{}' | sed -n 's/.*"id":"\([^"]*\)".*/\1/p' > "$work/session"
  sed -e "s|IMAGE|$IMAGE|; s|SESSION|$(cat "$work/session")|; s|URL|http://$name|; s|PODS|http://$name-pods:8080|" load.yaml |
    k apply --filename -
  for _ in $(seq 120); do
    if watched_now; then break; fi
    sleep 1
  done
  restarted > "$work/restarts"
}
watched_now() { k get --raw "$(api)/$(cat "$work/session")" | grep -q "\"clientCount\":$watchers\b"; }
settled() {
  k rollout status "deployment/$name" --timeout=5m
  watched "$(cat "$work/session")" "$(cat "$work/restarts")"
}
nodes() { k get deployment "$name" --output 'jsonpath={.spec.replicas}'; }

install() {
  kubectl create namespace "$space"
  kubectl label namespace "$space" pod-security.kubernetes.io/enforce=restricted
  # shellcheck disable=SC2046
  h install relay "$chart" --values values.yaml $(images "$IMAGE") --timeout 5m
}
self_test() { h test relay --logs --timeout 3m; }
load() { k rollout status "deployment/$name" --timeout=5m && begin_load && settled; }
rollout() { k rollout restart "deployment/$name" && settled; }
kill_a_node() {
  k delete --force --grace-period=0 "$(k get pods --selector app.kubernetes.io/component=relay --output name | head -n 1)"
  settled
}
scale() { change --set replicaCount=5 --wait && settled && change --set replicaCount=3 --wait && settled; }
password() {
  local old=of-a-test-that-ends-soon new=another-one-that-ends-soon
  change --set "redis.bundled.password=$new,redis.bundled.previousPassword=$old" --wait && settled
  change --set redis.bundled.previousPassword= --wait && settled
  if change --set "redis.bundled.password=$old" --wait; then echo "Helm accepted a password that locks the nodes out"; return 1; fi
}
autoscale() {
  change --set autoscaling.enabled=true,autoscaling.minReplicas=2
  for _ in $(seq 20); do
    [ "$(nodes)" -ge 2 ] || { echo "the Deployment fell to $(nodes) nodes"; return 1; }
    sleep 1
  done
  settled
}
frames() {
  local sent failed
  sent=$(k get job frames --output 'jsonpath={.status.succeeded}')
  failed=$(k get job frames --output 'jsonpath={.status.failed}')
  k delete job frames --wait=false
  echo "${sent:-0} frames arrived, ${failed:-0} did not"
  [ "${failed:-0}" = 0 ] && [ "${sent:-0}" -gt 0 ]
}
upgrade() {
  k delete pod watchers --wait=false
  h uninstall relay --wait --timeout 3m
  # shellcheck disable=SC2046
  h install relay "$work/old/helm/gitorial-relay" --values values.yaml $(images "$old_image") --wait --timeout 5m
  k wait --for=delete pod/watchers --timeout=60s
  begin_load
  # shellcheck disable=SC2046
  change $(images "$IMAGE") --wait && settled
}
export -f k h images change api watched restarted begin_load watched_now settled nodes
export -f install self_test load rollout kill_a_node scale password autoscale frames upgrade

failed=0
row() { printf '| %-34s | %-7s | %7s | %s |\n' "$@"; }
# Runs a step with a limit in seconds, and prints its row. A step that depends on a failed one fails at its own limit.
step() {
  local label=$1 limit=$2 code=0 began=$SECONDS
  printf '\n== %s\n' "$label" >> "$log"
  timeout "$limit" bash -euo pipefail -c "$3" > "$work/said" 2>&1 || code=$?
  cat "$work/said" >> "$log"
  local result=ok what=
  if [ "$code" != 0 ]; then
    result=FAILED failed=1 what=$(tail -n 1 "$work/said" | cut -c 1-100)
    if [ "$code" = 124 ]; then what="no end within $limit s"; fi
  elif [ "$3" = frames ]; then
    what=$(tail -n 1 "$work/said")
  fi
  row "$label" "$result" $((SECONDS - began)) "$what"
}

tag=
for one in $(git -C "$root" tag --list 'v*' --merged HEAD --sort=-v:refname); do
  if git -C "$root" cat-file -e "$one:helm/gitorial-relay/Chart.yaml" 2>/dev/null; then tag=$one; break; fi
done

echo "Kubernetes $(kubectl version --request-timeout=10s 2>/dev/null | sed -n 's/^Server Version: //p'), Helm $(helm version --short), namespace $space, log $log"
row step result seconds what
row ---------------------------------- ------- ------- ----
step "install, without --wait" 330 install
if [ "$failed" = 1 ]; then exit 1; fi
step "helm test right after it" 200 self_test
step "load: $watchers clients, and frames" 500 load
step "rollout" 400 rollout
step "a node is killed" 400 kill_a_node
step "3 to 5 nodes and back" 900 scale
step "change of Redis's password" 1500 password
step "autoscaling on" 500 autoscale
step "all frames of the load" 60 frames
step "helm test at the end" 200 self_test
if [ -n "$tag" ]; then
  mkdir "$work/old"
  git -C "$root" archive "$tag" helm/gitorial-relay | tar -x -C "$work/old"
  step "upgrade from $tag" 1200 upgrade
else
  row "upgrade from the last release" skipped 0 "no tag has a chart yet"
fi
exit "$failed"
