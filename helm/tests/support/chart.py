"""The chart, rendered by Helm itself."""

import functools
import json
import os
import pathlib
import subprocess
import tempfile

import yaml

TESTS = pathlib.Path(__file__).parent.parent
ROOT = TESTS.parent.parent
CHART = ROOT / "helm" / "gitorial-relay"
TOOLS = pathlib.Path(os.environ["CHART_TOOLS"])
MATRIX = sorted(path.stem for path in (TESTS / "values").glob("*.yaml"))
# The oldest version that the chart supports, and the three newest.
KUBERNETES = ["1.28", "1.35", "1.36", "1.37"]
RELEASE = "demo"


class Refused(Exception):
    """Helm refused to render; the message is its output."""


def helm(*arguments, major=4, cwd=None, kubeconfig="/dev/null"):
    """Runs Helm and returns its output."""
    with tempfile.TemporaryDirectory() as home:
        places = {f"HELM_{name}_HOME": home for name in ("CACHE", "CONFIG", "DATA")}
        command = [TOOLS / f"helm{major}" / "helm" / "helm", *arguments]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=cwd,
            check=False,
            timeout=60,
            env={**os.environ, **places, "KUBECONFIG": str(kubeconfig)},
        )
    if done.returncode:
        raise Refused(done.stdout + done.stderr)
    return done.stdout


def read_values(name):
    """A file of the matrix."""
    return yaml.safe_load((TESTS / "values" / f"{name}.yaml").read_text(encoding="utf-8")) or {}


def merged(base, more):
    """Merges values as Helm does: maps are merged, everything else is replaced."""
    if not (isinstance(base, dict) and isinstance(more, dict)):
        return more
    return {**base, **{key: merged(base.get(key), value) for key, value in more.items()}}


def template(values, *, kubernetes="1.37", major=4, release=RELEASE, chart=CHART, command=("template",)):
    """Helm's output for values: a map or the name of a file of the matrix."""
    if isinstance(values, str):
        values = read_values(values)
    text = json.dumps(values, sort_keys=True)
    return _template(text, kubernetes, major, release, str(chart), tuple(command))


@functools.lru_cache(maxsize=None)
def _template(text, kubernetes, major, release, chart, command):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        more = ["--kube-version", kubernetes] if command[0] == "template" else []
        return helm(*command, release, chart, "--values", file.name, *more, major=major)


def render(values, **how):
    """The manifests as objects."""
    return [document for document in yaml.safe_load_all(template(values, **how)) if document]


def notes(values):
    """The notes that an installation prints."""
    return template(values, command=("install", "--dry-run=client")).split("\nNOTES:\n", 1)[1]


def only(documents, kind, ending=""):
    """The only object of a kind with this ending of its name."""
    found = [one for one in documents if one["kind"] == kind and one["metadata"]["name"].endswith(ending)]
    assert len(found) == 1, f"{len(found)} of {kind} …{ending}"
    return found[0]


def kinds(documents):
    """The kinds of the objects, sorted."""
    return sorted({one["kind"] for one in documents})


def relay(documents):
    """The relay's Deployment."""
    return only(documents, "Deployment")


def pod_of(workload):
    """The pod specification of an object, or None."""
    if workload["kind"] == "Pod":
        return workload["spec"]
    return workload.get("spec", {}).get("template", {}).get("spec")


def container(documents):
    """The relay's container."""
    return pod_of(relay(documents))["containers"][0]


def environment(documents):
    """The environment of the relay's container, as the kubelet would build it from the chart's objects."""

    def data_of(kind, name):
        found = [one for one in documents if one["kind"] == kind and one["metadata"]["name"] == name]
        return {**found[0].get("data", {}), **found[0].get("stringData", {})} if found else {}

    env = {}
    for source in container(documents).get("envFrom", []):
        env.update(data_of("ConfigMap", source["configMapRef"]["name"]))
    for one in container(documents).get("env", []):
        secret = one.get("valueFrom", {}).get("secretKeyRef")
        if secret:
            env[one["name"]] = data_of("Secret", secret["name"]).get(
                secret["key"], f"<{secret['name']}/{secret['key']}>"
            )
        elif "value" in one:
            value = one["value"]
            for name, known in env.items():
                value = value.replace(f"$({name})", known)
            env[one["name"]] = value
    return env


def refusal(values, **how):
    """Helm's message when it refuses values."""
    try:
        template(values, **how)
    except Refused as refused:
        return " ".join(str(refused).split())
    raise AssertionError("Helm accepted the values")
