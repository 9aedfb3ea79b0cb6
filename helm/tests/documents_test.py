"""The documents describe the chart correctly."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile

import yaml

from support import chart
from support.rules import for_each, rule, same

sys.path.insert(0, str(chart.ROOT / "helm"))
import values_table  # noqa: E402  pylint: disable=wrong-import-position

README = (chart.CHART / "README.md").read_text(encoding="utf-8")
VALUES = (chart.CHART / "values.yaml").read_text(encoding="utf-8")
SCHEMA = json.loads((chart.CHART / "values.schema.json").read_text(encoding="utf-8"))


@rule
def the_readme_has_every_value_with_its_default():
    wanted, bare = values_table.page(README, VALUES)
    same(bare, [], "values without a description")
    assert README == wanted, "the README's table differs from values.yaml; run helm/values_table.py"


@rule
def a_value_without_a_description_is_detected():
    _, bare = values_table.table("# -- This one.\na:\n  b: 1\nc:\n  # -- And this one.\n  d: 2\n  e: 3\n")
    same(bare, [("c", "e")])


@rule
def the_readme_s_production_values_render():
    text = re.search(r"```yaml\n# production.yaml\n(.*?)```", README, re.DOTALL)[1]
    documents = chart.render(yaml.safe_load(text))
    same(chart.relay(documents)["spec"]["replicas"], 3)
    same(
        chart.kinds(documents),
        [
            "ConfigMap",
            "Deployment",
            "Ingress",
            "NetworkPolicy",
            "Pod",
            "PodDisruptionBudget",
            "PodMonitor",
            "PrometheusRule",
            "Service",
            "ServiceAccount",
        ],
    )


@rule
def the_readme_s_commands_run_as_printed():
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).replace("\\\n", "")
    commands = [line for line in blocks.splitlines() if line.startswith(("helm install", "kubectl create"))]
    same(len(commands), 4)
    with tempfile.TemporaryDirectory() as folder:
        production = re.search(r"```yaml\n(# production.yaml\n.*?)```", README, re.DOTALL)[1]
        (pathlib.Path(folder) / "production.yaml").write_text(production, encoding="utf-8")
        (pathlib.Path(folder) / "helm").symlink_to(chart.ROOT / "helm")
        path = os.pathsep.join(
            [*(str(chart.TOOLS / "helm4" / tool) for tool in ("helm", "kubectl")), os.environ["PATH"]]
        )
        for command in commands:
            # There is no cluster here: a dry run prints the objects.
            dry = " --dry-run=client" + (" --output=yaml" if command.startswith("kubectl") else "")
            done = subprocess.run(
                ["bash", "-c", command.split("   #")[0] + dry],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
                env={**os.environ, "PATH": path, "KUBECONFIG": "/dev/null", "HOME": folder},
            )
            same(done.returncode, 0, f"{command}: {done.stderr}")


@rule
def the_package_is_the_chart():
    with tempfile.TemporaryDirectory() as folder:
        chart.helm("package", str(chart.CHART), "--destination", folder)
        package = next(pathlib.Path(folder).glob("*.tgz"))
        with tarfile.open(package) as archive:
            packed = {name.removeprefix("gitorial-relay/") for name in archive.getnames()}
        there = {str(path.relative_to(chart.CHART)) for path in chart.CHART.rglob("*") if path.is_file()}
        same(packed, there)
        same(chart.render("everything-on", chart=package), chart.render("everything-on"))


@rule
def the_readme_s_timetable_matches_the_defaults():
    values = yaml.safe_load(VALUES)
    wait, drain = values["shutdown"]["preStopSeconds"], int(values["config"]["drain-timeout"].rstrip("s"))
    seconds = [int(row) for row in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)]
    same(seconds, [0, wait, wait + drain, wait + drain + values["shutdown"]["slackSeconds"]])


@rule
def every_relative_link_leads_to_a_file():
    for link in re.findall(r"\]\(([^)#]+)", README):
        assert "://" in link or (chart.CHART / link).exists(), link


def shape(schema):
    """The keys of a schema as a tree; None for an open schema or a leaf."""
    schema = SCHEMA["definitions"][schema["$ref"].split("/")[-1]] if "$ref" in schema else schema
    properties = schema.get("properties")
    return {key: shape(inner) for key, inner in properties.items()} if properties else None


def compare(schema, values, path=""):
    """The keys that only one of the two has."""
    if schema is None or not isinstance(values, dict):
        return []
    found = [f"{path}{key}" for key in schema.keys() ^ values.keys()]
    for key in schema.keys() & values.keys():
        found += compare(schema[key], values[key], f"{path}{key}.")
    return found


@rule
def the_schema_has_exactly_the_values():
    differ = set(compare(shape(SCHEMA), yaml.safe_load(VALUES)))
    optional = {f"config.{name}" for name in SCHEMA["properties"]["config"]["properties"]}
    optional |= {f"probes.{probe}.initialDelaySeconds" for probe in ("startup", "liveness", "readiness")}
    # Helm adds "global" for every subchart, and a parent chart adds its condition.
    same(differ - optional - {"global", "enabled"}, set())


@rule
def the_schema_refuses_unknown_keys():
    def check(schema, path):
        if "properties" in schema:
            assert schema.get("additionalProperties") is False, f"{path} accepts any key"
        for key, inner in schema.get("properties", {}).items():
            check(inner, f"{path}.{key}")
        if "items" in schema:
            check(schema["items"], path + "[]")

    check(SCHEMA, "values")
    for name, inner in SCHEMA["definitions"].items():
        check(inner, name)


@rule
def the_chart_has_the_version_of_the_relay():
    meta = yaml.safe_load((chart.CHART / "Chart.yaml").read_text(encoding="utf-8"))
    cargo = (chart.ROOT / "Cargo.toml").read_text(encoding="utf-8")
    same(str(meta["appVersion"]), re.search(r'^version = "(.*)"', cargo, re.MULTILINE)[1])


@for_each(
    [("rules.yaml", "deploy/prometheus/rules.yaml"), ("dashboard.json", "deploy/grafana/dashboard.json")], say=max
)
def the_chart_has_copies_of_the_files_of_deploy(case):
    copy, original = case
    assert (chart.CHART / "files" / copy).read_bytes() == (chart.ROOT / original).read_bytes(), f"copy {original} again"


@rule
def alerts_and_dashboard_are_rendered_unchanged():
    documents = chart.render("production")
    rules = yaml.safe_load((chart.ROOT / "deploy/prometheus/rules.yaml").read_text(encoding="utf-8"))
    same(chart.only(documents, "PrometheusRule")["spec"], rules)
    board = chart.only(documents, "ConfigMap", "-dashboard")
    text = (chart.ROOT / "deploy/grafana/dashboard.json").read_text(encoding="utf-8")
    same(json.loads(board["data"]["gitorial-relay.json"]), json.loads(text))
    same(
        (board["metadata"]["labels"]["grafana_dashboard"], board["metadata"]["annotations"]),
        ("1", {"grafana_folder": "Gitorial"}),
    )


NOTES = {
    "defaults": [
        "1 node, embedded store",
        "WARNING: the embedded store",
        "WARNING: the image gitorial-relay:0.1.0 names no registry",
        "ImagePullBackOff",
        "port-forward service/demo-gitorial-relay 8080:80",
    ],
    "bundled": ["2 nodes, bundled Redis", "WARNING: the bundled Redis"],
    "everything-off": ["1 node, embedded store"],
    "production": [
        "3 to 10 nodes, external Redis",
        "https://relay.example.org/",
        "rollout restart deployment/demo-gitorial-relay",
    ],
    "gateway": ["through the Gateway public, at relay.example.org"],
    "sentinel": ["Send a frame from one node to another"],
}


@for_each(NOTES)
def the_notes_have_the_address_and_the_warnings(name):
    said = chart.notes(name)
    for words in NOTES[name]:
        assert words in said, f"{words!r} is not in:\n{said}"
    same("WARNING: the embedded" in said or "WARNING: the bundled" in said, ", external Redis" not in said, "the store")
    repository = chart.read_values(name).get("image", {}).get("repository", "gitorial-relay")
    same("ImagePullBackOff" in said, "/" not in repository, "the image")
    assert max(map(len, said.splitlines())) <= 130, "a line is too long to read"
