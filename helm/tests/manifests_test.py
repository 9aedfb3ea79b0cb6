"""Properties of all manifests, for all values."""

import functools
import itertools
import json
import subprocess

import yaml
from kubernetes_validate import utils
from jsonschema.validators import Draft202012Validator
from referencing import Registry, Resource

from support import chart
from support.rules import for_each, rule, same

CUSTOM = ("monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1")


@functools.lru_cache(maxsize=None)
def definitions(kubernetes):
    """The shared types of a version of Kubernetes. They are large, so they are read once."""
    folder = f"kubernetes-json-schema/v{kubernetes}.0-local-strict"
    return folder, Resource.from_contents(utils.schema_contents(f"{folder}/_definitions.json", kubernetes))


@functools.lru_cache(maxsize=None)
def validator(kubernetes, kind, api):
    """The schema of a kind."""
    folder, shared = definitions(kubernetes)
    group = api.split("/")[0].split(".")[0] + "-" + api.split("/")[1] if "/" in api else api
    schema = utils.schema_contents(f"{folder}/{kind.lower()}-{group}.json", kubernetes)
    registry = shared @ (Resource.from_contents(schema) @ Registry())
    return Draft202012Validator(schema, registry=registry)


def problems(documents, kubernetes):
    """The problems of manifests by the types of a version of Kubernetes."""
    found = []
    for one in documents:
        if one["apiVersion"] in CUSTOM:
            continue
        for error in validator(kubernetes, one["kind"], one["apiVersion"]).iter_errors(one):
            found.append(f"{one['kind']} {one['metadata']['name']} {error.json_path}: {error.message}")
    return found


def custom_problems(documents):
    """The problems of custom resources by the types of their operators."""
    custom = [one for one in documents if one["apiVersion"] in CUSTOM]
    done = subprocess.run(
        ["node", "custom_resources.mjs"],
        input=json.dumps(custom),
        capture_output=True,
        text=True,
        cwd=chart.TESTS,
        check=True,
        timeout=60,
    )
    return len(custom), json.loads(done.stdout)


@for_each(chart.MATRIX)
def helm_lint_finds_nothing(name):
    chart.helm("lint", "--strict", str(chart.CHART), "--values", str(chart.TESTS / "values" / f"{name}.yaml"))


@for_each(list(itertools.product(chart.MATRIX, chart.KUBERNETES)), say=" on ".join)
def manifests_match_the_types_of_kubernetes(case):
    name, kubernetes = case
    same(problems(chart.render(name, kubernetes=kubernetes), kubernetes), [])


@rule
def a_field_unknown_to_kubernetes_is_detected():
    for kubernetes in chart.KUBERNETES:
        documents = json.loads(json.dumps(chart.render("defaults", kubernetes=kubernetes)))
        chart.container(documents)["readinesProbe"] = {}
        chart.relay(documents)["spec"]["minReadySeconds"] = "5"
        said = " ".join(problems(documents, kubernetes))
        assert "readinesProbe" in said and "minReadySeconds" in said, said


@rule
def custom_resources_match_the_types_of_their_operators():
    documents = [one for name in chart.MATRIX for one in chart.render(name)]
    seen, wrong = custom_problems(documents)
    same(wrong, [])
    assert seen >= 6, f"only {seen} custom resources"
    kinds = {one["kind"] for one in documents if one["apiVersion"] in CUSTOM}
    same(kinds, {"HTTPRoute", "PodMonitor", "PrometheusRule", "ServiceMonitor"})


@rule
def a_wrong_type_in_a_custom_resource_is_detected():
    documents = json.loads(json.dumps(chart.render("everything-on")))
    chart.only(documents, "PodMonitor")["spec"]["podMetricsEndpoints"] = "ops"
    chart.only(documents, "HTTPRoute")["spec"]["rules"][0]["timeouts"]["request"] = 5
    same(len(custom_problems(documents)[1]), 2)


@for_each(chart.MATRIX)
def helm_3_and_helm_4_render_the_same(name):
    same(chart.render(name, major=3), chart.render(name, major=4))


@rule
def the_same_values_give_the_same_manifests():
    for name in chart.MATRIX:
        first = chart.template(name)
        chart._template.cache_clear()
        assert chart.template(name) == first, f"{name} is rendered differently"


@for_each(chart.MATRIX)
def every_object_has_the_standard_labels(name):
    for one in chart.render(name):
        labels = one["metadata"]["labels"]
        same(labels["app.kubernetes.io/instance"], chart.RELEASE)
        same(labels["app.kubernetes.io/managed-by"], "Helm")
        assert labels["app.kubernetes.io/name"] and labels["app.kubernetes.io/component"], one["metadata"]["name"]


@rule
def names_are_unique_and_at_most_63_letters_long():
    longest = "a" * 53
    for name in chart.MATRIX:
        documents = chart.render(name, release=longest)
        names = [(one["kind"], one["metadata"]["name"]) for one in documents]
        same(len(set(names)), len(names), f"names in {name}")
        for _, one in names:
            assert len(one) <= 63, one
        for one in documents:
            for value in one["metadata"]["labels"].values():
                assert len(value) <= 63, value


@for_each(chart.MATRIX)
def every_reference_of_an_object_exists(name):
    documents = chart.render(name)
    theirs = yaml.safe_dump(chart.read_values(name))

    def there(kind, wanted):
        own = any(one["kind"] == kind and one["metadata"]["name"] == wanted for one in documents)
        assert own or wanted in theirs, f"{kind} {wanted} does not exist"

    for one in documents:
        spec = chart.pod_of(one)
        if not spec:
            continue
        if spec.get("serviceAccountName", "default") != "default":
            there("ServiceAccount", spec["serviceAccountName"])
        for volume in spec.get("volumes", []):
            if "secret" in volume:
                there("Secret", volume["secret"]["secretName"])
            if "configMap" in volume:
                there("ConfigMap", volume["configMap"]["name"])
        for box in spec["containers"]:
            mounted = {mount["name"] for mount in box.get("volumeMounts", [])}
            claimed = [claim["metadata"] for claim in one["spec"].get("volumeClaimTemplates", [])]
            same(mounted, {volume["name"] for volume in spec.get("volumes", []) + claimed}, "volumes that are mounted")
            for source in box.get("envFrom", []):
                there("ConfigMap", source["configMapRef"]["name"])
            for env in box.get("env", []):
                if "secretKeyRef" in env.get("valueFrom", {}):
                    there("Secret", env["valueFrom"]["secretKeyRef"]["name"])


def selects(selector, labels):
    """Whether a selector matches labels."""
    return selector.items() <= labels.items()


@for_each(chart.MATRIX)
def every_selector_finds_exactly_its_pods(name):
    documents = chart.render(name)
    pods = {}
    for one in documents:
        if chart.pod_of(one):
            pod = one if one["kind"] == "Pod" else one["spec"]["template"]
            pods[one["metadata"]["name"]] = pod["metadata"]["labels"]
    node = chart.relay(documents)["metadata"]["name"]
    for one in documents:
        spec = one.get("spec", {})
        selector = {
            "Deployment": lambda: spec["selector"]["matchLabels"],
            "StatefulSet": lambda: spec["selector"]["matchLabels"],
            "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
            "PodMonitor": lambda: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda: spec["podSelector"]["matchLabels"],
            "Service": lambda: spec["selector"],
        }.get(one["kind"])
        if selector:
            found = [pod for pod, labels in pods.items() if selects(selector(), labels)]
            meant = f"{node}-redis" if one["metadata"]["name"].endswith("-redis") else node
            same(found, [meant], f"{one['kind']} {one['metadata']['name']}")
    for spread in chart.pod_of(chart.relay(documents)).get("topologySpreadConstraints", []):
        assert selects(spread["labelSelector"]["matchLabels"], pods[node]), "the spread selects other pods"
