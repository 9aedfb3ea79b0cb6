"""The allowed connections between clients, nodes and Redis."""

from support import chart
from support.chart import only, relay, render
from support.rules import rule, same


def policy(name, ending="gitorial-relay"):
    """A NetworkPolicy's rules."""
    return only(render(name), "NetworkPolicy", ending)["spec"]


def ports(rules):
    """The ports of rules."""
    return [port["port"] for one in rules for port in one["ports"]]


@rule
def services_for_clients_do_not_expose_the_ops_port():
    for name in chart.MATRIX:
        public = [one for one in render(name) if one["kind"] == "Service" and one["spec"].get("clusterIP") != "None"]
        for service in public:
            wanted = ["redis"] if service["metadata"]["name"].endswith("-redis") else ["http"]
            same([port["targetPort"] for port in service["spec"]["ports"]], wanted, name)


@rule
def an_ingress_keeps_sockets_open_for_an_hour():
    documents = render("production")
    ingress, service = only(documents, "Ingress"), only(documents, "Service", "gitorial-relay")
    same(ingress["spec"]["ingressClassName"], "nginx")
    same(ingress["spec"]["tls"], [{"secretName": "relay-tls", "hosts": ["relay.example.org"]}])
    for rule_ in ingress["spec"]["rules"]:
        same(
            rule_["http"]["paths"],
            [
                {
                    "path": "/",
                    "pathType": "Prefix",
                    "backend": {
                        "service": {
                            "name": service["metadata"]["name"],
                            "port": {"name": service["spec"]["ports"][0]["name"]},
                        },
                    },
                }
            ],
        )
    for kind in ("read", "send"):
        same(ingress["metadata"]["annotations"][f"nginx.ingress.kubernetes.io/proxy-{kind}-timeout"], "3600")


@rule
def a_route_has_no_time_limits():
    documents = render("gateway")
    spec = only(documents, "HTTPRoute")["spec"]
    same(spec["parentRefs"], [{"name": "public", "namespace": "gateways", "sectionName": "https"}])
    same(spec["hostnames"], ["relay.example.org"])
    same(spec["rules"][0]["timeouts"], {"request": "0s", "backendRequest": "0s"})
    same(spec["rules"][0]["backendRefs"], [{"name": "relay", "port": 8443}])
    service = [one for one in documents if one["kind"] == "Service" and one["metadata"]["name"] == "relay"][0]["spec"]
    same(
        (service["type"], service["externalTrafficPolicy"], service["ipFamilyPolicy"]),
        ("LoadBalancer", "Local", "PreferDualStack"),
    )
    same(service["ports"][0]["port"], 8443)


@rule
def only_configured_clients_and_scrapers_have_access():
    values, ingress = chart.read_values("production")["networkPolicy"], policy("production")["ingress"]
    same(ports(ingress), ["http", "ops"])
    same(ingress[0]["from"][0], values["clients"][0])
    test = only(render("production"), "Pod")["metadata"]["labels"]
    assert ingress[0]["from"][1]["podSelector"]["matchLabels"].items() <= test.items(), "helm test has no access"
    same(ingress[1]["from"], values["scraping"])
    same(policy("tls-acl")["ingress"], [{"ports": [{"port": "http"}]}], "clients without a list, scrapers without a list")


@rule
def nodes_may_connect_only_to_dns_and_redis():
    same(ports(policy("production")["egress"]), [53, 53, 6380])
    same(policy("production")["egress"][1]["to"], [{"ipBlock": {"cidr": "10.1.0.0/16"}}])
    same(ports(policy("tls-acl")["egress"]), [53, 53, 6380])
    same(ports(policy("sentinel")["egress"]), [53, 53, 26379, 26380, 6379], "Sentinels, and the servers behind them")
    same(ports(policy("cluster")["egress"]), [53, 53, 6379, 7001])
    same(ports(policy("everything-on", "demo-gr")["egress"]), [53, 53, 6379, 4318])
    off = policy("everything-off")
    same((off["egress"], off["policyTypes"]), (None, ["Ingress", "Egress"]), "the embedded store needs no connection")


@rule
def the_bundled_redis_accepts_only_nodes():
    documents = render("bundled")
    spec = policy("bundled", "-redis")
    same(spec["egress"], [])
    same(ports(spec["ingress"]), ["redis"])
    nodes = relay(documents)["spec"]["template"]["metadata"]["labels"]
    assert spec["ingress"][0]["from"][0]["podSelector"]["matchLabels"].items() <= nodes.items()
    redis = only(documents, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    to = policy("bundled")["egress"][1]["to"][0]["podSelector"]["matchLabels"]
    assert to.items() <= redis.items()


@rule
def every_node_is_scraped_once_with_the_alerts_job_name():
    monitor = only(render("production"), "PodMonitor")
    same(monitor["metadata"]["labels"]["release"], "prometheus")
    endpoint = monitor["spec"]["podMetricsEndpoints"][0]
    same((endpoint["port"], endpoint["path"]), ("ops", "/metrics"))
    same(endpoint["relabelings"], [{"targetLabel": "job", "replacement": "gitorial-relay"}])
    documents = render("gateway")
    monitor = only(documents, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    found = [one for one in documents if one["kind"] == "Service" and wanted <= one["metadata"]["labels"].items()]
    same([one["metadata"]["name"] for one in found], ["relay-pods"], "the Services that are scraped")
    assert "ops" in [port["name"] for port in found[0]["spec"]["ports"]]
    same(monitor["spec"]["endpoints"][0]["relabelings"], endpoint["relabelings"])
