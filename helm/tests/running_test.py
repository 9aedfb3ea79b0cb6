"""What the chart does when it looks at what runs: it renders in a cluster that has these objects."""

import yaml

from support import chart
from support.chart import merged, read_values, relay
from support.kubernetes import cluster, deployment, secret, template_in
from support.rules import for_each, rule, same

NAME = f"{chart.RELEASE}-gitorial-relay"
SCALED = merged(read_values("bundled"), {"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 6}})


def render_in(kubeconfig, values, major=4):
    """The manifests as objects."""
    return [one for one in yaml.safe_load_all(template_in(kubeconfig, values, major)) if one]


@for_each([3, 4])
def turning_autoscaling_on_keeps_the_number_of_nodes(major):
    for running, wanted in ((3, 3), (5, 5), (1, 2), (9, 6), (0, 2)):
        with cluster(deployment(NAME, running)) as kubeconfig:
            same(relay(render_in(kubeconfig, SCALED, major))["spec"]["replicas"], wanted, f"{running} nodes run")


@rule
def without_autoscaling_the_number_of_nodes_is_the_value():
    with cluster(deployment(NAME, 5)) as kubeconfig:
        same(relay(render_in(kubeconfig, read_values("bundled")))["spec"]["replicas"], 2)


@rule
def an_installation_with_autoscaling_leaves_the_number_to_the_autoscaler():
    with cluster() as kubeconfig:
        assert "replicas" not in relay(render_in(kubeconfig, SCALED))["spec"]


@for_each([3, 4])
def a_change_of_the_bundled_redis_s_password_is_refused_while_nodes_use_the_old_one(major):
    old = read_values("bundled")
    new = merged(old, {"redis": {"bundled": {"password": "another-password-of-nobody"}}})
    both = merged(new, {"redis": {"bundled": {"previousPassword": old["redis"]["bundled"]["password"]}}})
    with cluster(secret(f"{NAME}-redis", password=old["redis"]["bundled"]["password"])) as kubeconfig:
        render_in(kubeconfig, old, major)
        render_in(kubeconfig, both, major)
        try:
            render_in(kubeconfig, new, major)
        except chart.Refused as refused:
            said = " ".join(str(refused).split())
        else:
            raise AssertionError("Helm accepted the new password")
        assert "set redis.bundled.previousPassword to it until they are replaced" in said, said
        assert f"kubectl --namespace default get secret {NAME}-redis" in said, said
        assert "not-a-secret-of-anybody" not in said and "another-password" not in said, said
    # After the change, and on a first installation.
    for objects in ([secret(f"{NAME}-redis", password="another-password-of-nobody")], []):
        with cluster(*objects) as kubeconfig:
            render_in(kubeconfig, new, major)
