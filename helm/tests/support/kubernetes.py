"""A server that answers what Helm asks a cluster before it renders: its version, its kinds and single objects."""

import base64
import contextlib
import http.server
import json
import pathlib
import re
import tempfile
import threading

from support import chart

KINDS = {
    "v1": ["Secret", "ConfigMap", "Service", "ServiceAccount", "Pod"],
    "apps/v1": ["Deployment", "StatefulSet"],
    "autoscaling/v2": ["HorizontalPodAutoscaler"],
    "networking.k8s.io/v1": ["NetworkPolicy", "Ingress"],
    "policy/v1": ["PodDisruptionBudget"],
}


def _many(kind):
    """The name of a kind in paths."""
    return re.sub("y$", "ie", kind.lower()) + ("es" if kind.endswith("s") else "s")


def _answers(objects):
    """Everything that can be asked, by its path."""
    known = {
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
    }
    groups = []
    for version, kinds in KINDS.items():
        resources = [{"name": _many(kind), "namespaced": True, "kind": kind, "verbs": ["get", "list"]} for kind in kinds]
        path = f"/apis/{version}" if "/" in version else f"/api/{version}"
        known[path] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
        if "/" in version:
            own = {"groupVersion": version, "version": version.split("/")[1]}
            groups.append({"name": version.split("/")[0], "versions": [own], "preferredVersion": own})
        for one in objects:
            if one["apiVersion"] == version:
                known[f"{path}/namespaces/default/{_many(one['kind'])}/{one['metadata']['name']}"] = one
    return {**known, "/apis": {"kind": "APIGroupList", "groups": groups}}


def _meta(name):
    """The metadata by which Helm knows an object of the release."""
    notes = {"meta.helm.sh/release-name": chart.RELEASE, "meta.helm.sh/release-namespace": "default"}
    labels = {"app.kubernetes.io/managed-by": "Helm"}
    return {"name": name, "namespace": "default", "labels": labels, "annotations": notes}


def secret(name, **data):
    """A Secret as a cluster has it."""
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": _meta(name), "data": encoded}


def deployment(name, replicas):
    """A Deployment as a cluster has it, as far as the chart looks at it."""
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _meta(name), "spec": {"replicas": replicas}}


@contextlib.contextmanager
def cluster(*objects):
    """A cluster that has these objects. Yields its kubeconfig."""
    known = _answers(objects)

    class Handler(http.server.BaseHTTPRequestHandler):
        """Answers from the table."""

        def do_GET(self):  # pylint: disable=invalid-name
            """A look at something."""
            found = known.get(self.path.split("?")[0])
            wrong = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(found or wrong).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *arguments):  # pylint: disable=redefined-builtin
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "kubeconfig"
        path.write_text(json.dumps(config), encoding="utf-8")
        try:
            yield path
        finally:
            server.shutdown()
            server.server_close()


def template_in(kubeconfig, values, major=4):
    """Helm's output for values in this cluster, where the chart can look objects up."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(json.dumps(values))
        file.flush()
        arguments = ["template", chart.RELEASE, str(chart.CHART), "--values", file.name, "--dry-run=server"]
        # Helm 4 would ask for the types of all objects, too.
        arguments.append("--disable-openapi-validation")
        return chart.helm(*arguments, "--namespace", "default", major=major, kubeconfig=kubeconfig)
