"""Start, probes, scaling and termination of the nodes."""

from support import chart
from support.chart import container, merged, only, pod_of, relay, render
from support.rules import rule, same

SEVERAL = {"replicaCount": 2, "redis": {"mode": "external", "external": {"url": "redis://redis:6379"}}}


@rule
def the_probes_use_readyz_and_healthz_on_the_ops_port():
    box = container(render("defaults"))
    ports = {port["name"]: port["containerPort"] for port in box["ports"]}
    same(ports, {"http": 8080, "ops": 9090})
    paths = {kind: box[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    same(paths["readiness"], {"path": "/readyz", "port": "ops"})
    same(paths["liveness"], {"path": "/healthz", "port": "ops"})
    same(paths["startup"], {"path": "/healthz", "port": "ops"})
    env = chart.environment(render("defaults"))
    same(env["RELAY_LISTEN"], "0.0.0.0:8080")
    same(env["RELAY_OPS_LISTEN"], "0.0.0.0:9090")
    same(chart.environment(render("gateway"))["RELAY_OPS_LISTEN"], "[::]:9090")


@rule
def the_values_configure_the_probes():
    values = {
        "probes": {"readiness": {"periodSeconds": 7, "initialDelaySeconds": 3}, "liveness": {"failureThreshold": 9}}
    }
    box = container(render(values))
    readiness = {"httpGet": {"path": "/readyz", "port": "ops"}, "periodSeconds": 7, "timeoutSeconds": 2}
    same(box["readinessProbe"], {**readiness, "failureThreshold": 2, "initialDelaySeconds": 3})
    same(box["livenessProbe"]["failureThreshold"], 9)


@rule
def a_rollout_never_has_fewer_nodes_than_configured():
    same(
        relay(render(SEVERAL))["spec"]["strategy"],
        {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
        },
    )


@rule
def two_nodes_without_redis_never_run_at_once():
    spec = relay(render("defaults"))["spec"]
    same((spec["replicas"], spec["strategy"]), (1, {"type": "Recreate"}))


@rule
def the_termination_time_is_the_sum_of_its_parts():
    cases = {"25s": 35, "0s": 10, "1500ms": 12, "1m": 70, "1h 30m": 5410, "1h30m": 5410, "2m 500ms": 131}
    for drain, seconds in cases.items():
        documents = render({"config": {"drain-timeout": drain}})
        same(pod_of(relay(documents))["terminationGracePeriodSeconds"], seconds, drain)
        same(chart.environment(documents)["RELAY_DRAIN_TIMEOUT"], drain)
    shutdown = {"shutdown": {"preStopSeconds": 12, "slackSeconds": 8}}
    same(pod_of(relay(render(shutdown)))["terminationGracePeriodSeconds"], 45)
    longer = {"shutdown": {"terminationGracePeriodSeconds": 300}}
    same(pod_of(relay(render(longer)))["terminationGracePeriodSeconds"], 300)


@rule
def a_terminating_pod_waits_until_services_remove_it():
    same(container(render("defaults"))["lifecycle"], {"preStop": {"sleep": {"seconds": 5}}})
    assert "lifecycle" not in container(render("defaults", kubernetes="1.29")), "1.29 has no sleep action"
    same(container(render("defaults", kubernetes="1.30"))["lifecycle"], {"preStop": {"sleep": {"seconds": 5}}})
    # Clouds add a suffix to versions, which semantic versioning treats as a pre-release.
    assert "lifecycle" in container(render("defaults", kubernetes="v1.31.4-gke.100"))
    assert "lifecycle" not in container(render({"shutdown": {"preStopSeconds": 0}})), "0 disables the wait"


@rule
def evictions_are_one_by_one_and_possible_without_redis():
    spec = only(render(SEVERAL), "PodDisruptionBudget")["spec"]
    same((spec["maxUnavailable"], spec["unhealthyPodEvictionPolicy"]), (1, "AlwaysAllow"))
    assert "PodDisruptionBudget" not in chart.kinds(render("defaults")), "the only pod of the embedded store may be evicted"
    share = merged(SEVERAL, {"podDisruptionBudget": {"maxUnavailable": "25%"}})
    same(only(render(share), "PodDisruptionBudget")["spec"]["maxUnavailable"], "25%")


@rule
def the_number_of_nodes_depends_on_cpu_and_sockets():
    documents = render("everything-on")
    spec = only(documents, "HorizontalPodAutoscaler")["spec"]
    same(spec["scaleTargetRef"]["name"], relay(documents)["metadata"]["name"])
    same(
        spec["metrics"],
        [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}},
            },
            {
                "type": "Pods",
                "pods": {
                    "metric": {"name": "gitorial_relay_connections"},
                    "target": {"type": "AverageValue", "averageValue": "1500000"},
                },
            },
        ],
    )
    same(spec["behavior"]["scaleDown"]["policies"], [{"type": "Pods", "value": 1, "periodSeconds": 120}])
    assert "replicas" not in relay(documents)["spec"], "nothing runs, so the autoscaler decides"


@rule
def the_number_of_nodes_can_depend_on_sockets_only():
    scaling = {"enabled": True, "targetCPUUtilizationPercentage": None, "connections": {"enabled": True}}
    documents = render(merged(SEVERAL, {"autoscaling": scaling, "resources": {"requests": {"cpu": None}}}))
    same([one["type"] for one in only(documents, "HorizontalPodAutoscaler")["spec"]["metrics"]], ["Pods"])


@rule
def nodes_are_spread_over_zones_and_hosts_by_revision():
    spread = pod_of(relay(render("cluster")))["topologySpreadConstraints"]
    same([one["topologyKey"] for one in spread], ["topology.kubernetes.io/zone", "kubernetes.io/hostname"])
    for one in spread:
        same((one["whenUnsatisfiable"], one["matchLabelKeys"]), ("DoNotSchedule", ["pod-template-hash"]))


@rule
def pods_have_the_scheduling_values():
    spec, values = pod_of(relay(render("everything-on"))), chart.read_values("everything-on")
    for field in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets"):
        same(spec[field], values[field])
    meta = relay(render("everything-on"))["spec"]["template"]["metadata"]
    same((meta["labels"]["team"], meta["annotations"]["example.org/a"]), ("learning", "b"))
    box = spec["containers"][0]
    same(box["image"], f"gitorial-relay@{values['image']['digest']}")
    same(box["env"][-2:], values["extraEnv"])
    same(box["volumeMounts"][-1:], values["extraVolumeMounts"])
    same(spec["volumes"][-1:], values["extraVolumes"])


@rule
def helm_test_sends_a_frame_between_two_nodes():
    for name, nodes in (("defaults", "1"), ("sentinel", "2"), ("production", "2")):
        pod = only(render(name), "Pod")
        same(pod["metadata"]["annotations"]["helm.sh/hook"], "test")
        same(pod["spec"]["restartPolicy"], "Never")
        pods = only(render(name), "Service", "-pods")
        same(pods["spec"]["clusterIP"], "None")
        url = f"http://{pods['metadata']['name']}:{pods['spec']['ports'][0]['port']}"
        wait = ["--retry-for", "45s"]
        same(pod["spec"]["containers"][0]["args"], ["selftest", "--url", url, "--nodes", nodes, *wait])
        # The last try may begin at the end of this time, and the image may have to be pulled.
        assert pod["spec"]["activeDeadlineSeconds"] >= 45 + 40


@rule
def the_logs_of_helm_test_can_be_read_after_it():
    policy = only(render("defaults"), "Pod")["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
    same(policy, "before-hook-creation", "Helm 3 prints logs after it has removed the pods of a policy for the end")
