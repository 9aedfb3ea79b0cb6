"""An upgrade from the previous release is possible: the immutable fields of Kubernetes stay the same."""

import difflib
import pathlib
import subprocess
import tempfile

import yaml

from support import chart
from support.rules import rule, same

FIXED = {
    "Deployment": ["selector"],
    "StatefulSet": ["selector", "serviceName", "volumeClaimTemplates", "podManagementPolicy"],
}

# The number of lines of a difference that are shown.
LONGEST = 80


def fixed_that_changed(old, new):
    """The immutable fields that differ, and the objects that would get another name."""
    now = {(one["kind"], one["metadata"]["name"]): one for one in new}
    found = []
    for one in old:
        key = (one["kind"], one["metadata"]["name"])
        if one["kind"] in FIXED and key not in now:
            found.append(f"{one['kind']} {one['metadata']['name']} is gone")
            continue
        for field in FIXED.get(one["kind"], []):
            if one["spec"].get(field) != now[key]["spec"].get(field):
                found.append(f"{one['kind']} {one['metadata']['name']}: {field}")
        if one["kind"] == "Service" and key in now:
            if (one["spec"].get("clusterIP") == "None") != (now[key]["spec"].get("clusterIP") == "None"):
                found.append(f"Service {one['metadata']['name']}: clusterIP")
    return found


def git(*arguments):
    """The output of git, or an empty text after a failure."""
    done = subprocess.run(["git", *arguments], cwd=chart.ROOT, capture_output=True, check=False, timeout=60)
    return done.stdout if done.returncode == 0 else b""


def last_release():
    """The last tag before this commit that has a chart, or None."""
    for tag in git("tag", "--list", "v*", "--merged", "HEAD", "--sort=-v:refname").decode().split():
        if git("ls-tree", tag, "helm/gitorial-relay/Chart.yaml"):
            return tag
    return None


def compare(old_chart, tag):
    """Renders the files of the matrix with both charts, if the old one accepts them, and prints the difference."""
    compared = 0
    for name in chart.MATRIX:
        try:
            before = chart.template(name, chart=old_chart)
        except chart.Refused:
            print(f"        {tag} does not accept {name}")
            continue
        after = chart.template(name)
        compared += 1
        lines = list(
            difflib.unified_diff(
                before.splitlines(), after.splitlines(), f"{tag} {name}", f"now {name}", lineterm="", n=1
            )
        )
        shown = lines[:LONGEST] + ([f"… and {len(lines) - LONGEST} lines more"] if len(lines) > LONGEST else [])
        print("\n".join("        " + line for line in shown) or f"        {name}: no difference")
        old, new = ([one for one in yaml.safe_load_all(text) if one] for text in (before, after))
        same(fixed_that_changed(old, new), [], f"{name} cannot be upgraded from {tag}")
    assert compared, f"{tag} accepts no values of the matrix"


@rule
def the_previous_release_can_be_upgraded():
    tag = last_release()
    if tag is None:
        print("        no release with a chart yet: nothing to upgrade from")
        return
    with tempfile.TemporaryDirectory() as folder:
        archive = git("archive", tag, "helm/gitorial-relay")
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True, timeout=60)
        compare(pathlib.Path(folder) / "helm" / "gitorial-relay", tag)


@rule
def a_change_that_kubernetes_would_refuse_is_detected():
    old = chart.render("bundled")
    same(fixed_that_changed(old, old), [])

    def broken(kind, ending, change):
        new = yaml.safe_load_all(chart.template("bundled"))
        new = [one for one in new if one]
        change(chart.only(new, kind, ending))
        return fixed_that_changed(old, new)

    selector = broken("Deployment", "", lambda one: one["spec"]["selector"]["matchLabels"].update(a="b"))
    same(selector, ["Deployment demo-gitorial-relay: selector"])
    claims = broken("StatefulSet", "", lambda one: one["spec"].pop("volumeClaimTemplates"))
    same(claims, ["StatefulSet demo-gitorial-relay-redis: volumeClaimTemplates"])
    named = broken("Deployment", "", lambda one: one["metadata"].update(name="other"))
    same(named, ["Deployment demo-gitorial-relay is gone"])
    headless = broken("Service", "-pods", lambda one: one["spec"].pop("clusterIP"))
    same(headless, ["Service demo-gitorial-relay-pods: clusterIP"])
