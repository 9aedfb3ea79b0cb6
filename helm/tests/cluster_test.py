"""What of `make test-cluster` can be tried without a cluster."""

import os
import subprocess

import yaml

from manifests_test import problems
from support import chart
from support.kubernetes import cluster
from support.pod_security import violations
from support.rules import for_each, rule, same

FOLDER = chart.TESTS / "cluster"


def run(**env):
    """The exit code and the output of the script."""
    own = {name: value for name, value in os.environ.items() if name not in ("IMAGE", "KUBECONFIG")}
    done = subprocess.run(
        [FOLDER / "run.sh"], capture_output=True, text=True, check=False, timeout=60, env={**own, "HELM_MAJOR": "4", **env}
    )
    return done.returncode, done.stdout, done.stderr


def load():
    """The manifests of the load, as the script fills them in."""
    text = (FOLDER / "load.yaml").read_text(encoding="utf-8")
    for word, value in {"IMAGE": "i:1", "SESSION": "s", "URL": "http://u", "PODS": "http://p"}.items():
        text = text.replace(word, value)
    return [one for one in yaml.safe_load_all(text) if one]


@rule
def without_a_cluster_the_script_says_so_in_one_sentence():
    code, out, said = run(KUBECONFIG="/dev/null", IMAGE="relay:1")
    same((code, out, said.count("\n")), (1, "", 1), said)
    assert said.startswith("No cluster is given: set KUBECONFIG"), said


@for_each(["", "relay", "registry.example.org:5000/relay"])
def without_an_image_the_script_says_so_in_one_sentence(image):
    with cluster() as kubeconfig:
        code, out, said = run(KUBECONFIG=str(kubeconfig), IMAGE=image)
    same((code, out, said.count("\n")), (1, "", 1), said)
    assert said.startswith("No image is given: set IMAGE"), said


@rule
def a_cluster_that_refuses_everything_fails_in_the_first_row():
    with cluster() as kubeconfig:
        code, out, _ = run(KUBECONFIG=str(kubeconfig), IMAGE="registry.example.org:5000/relay:1")
    rows = [line for line in out.splitlines() if line.startswith("| ")]
    same((code, len(rows)), (1, 3), out)
    assert "install, without --wait" in rows[2] and "FAILED" in rows[2], out


@rule
def the_load_passes_pod_security_and_the_types_of_kubernetes():
    for one in load():
        pod = one["spec"] if one["kind"] == "Pod" else one["spec"]["template"]["spec"]
        same(violations(pod), [], one["metadata"]["name"])
    for kubernetes in chart.KUBERNETES:
        same(problems(load(), kubernetes), [])


@rule
def the_script_counts_the_clients_of_the_load():
    script = (FOLDER / "run.sh").read_text(encoding="utf-8")
    watchers = [box for one in load() if one["kind"] == "Pod" for box in one["spec"]["containers"]]
    assert f"\nwatchers={len(watchers)}\n" in script
    assert all(box["args"] == ["watch", "--url", "http://u", "s"] for box in watchers)


@rule
def the_script_s_values_render():
    values = yaml.safe_load((FOLDER / "values.yaml").read_text(encoding="utf-8"))
    same(chart.relay(chart.render(values))["spec"]["replicas"], 3)
