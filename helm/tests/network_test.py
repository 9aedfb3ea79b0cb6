"""Who reaches what."""

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
def clients_reach_the_port_for_clients_and_never_the_one_for_operators():
    for name in chart.MATRIX:
        public = [one for one in render(name) if one["kind"] == "Service" and one["spec"].get("clusterIP") != "None"]
        for service in public:
            wanted = ["redis"] if service["metadata"]["name"].endswith("-redis") else ["http"]
            same([port["targetPort"] for port in service["spec"]["ports"]], wanted, name)


@rule
def an_ingress_leads_to_the_relay_and_leaves_sockets_open_for_an_hour():
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
def a_route_leads_to_the_relay_and_ends_no_socket():
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
def only_named_clients_and_scrapers_get_in():
    values, ingress = chart.read_values("production")["networkPolicy"], policy("production")["ingress"]
    same(ports(ingress), ["http", "ops"])
    same(ingress[0]["from"][0], values["clients"][0])
    test = only(render("production"), "Pod")["metadata"]["labels"]
    assert ingress[0]["from"][1]["podSelector"]["matchLabels"].items() <= test.items(), "helm test is shut out"
    same(ingress[1]["from"], values["scraping"])
    same(policy("tls-acl")["ingress"], [{"ports": [{"port": "http"}]}], "anybody is a client, nobody scrapes")


@rule
def nodes_reach_names_and_redis_and_nothing_else():
    same(ports(policy("production")["egress"]), [53, 53, 6380])
    same(policy("production")["egress"][1]["to"], [{"ipBlock": {"cidr": "10.1.0.0/16"}}])
    same(ports(policy("tls-acl")["egress"]), [53, 53, 6380])
    same(ports(policy("sentinel")["egress"]), [53, 53, 26379, 26380, 6379], "Sentinels, and the servers behind them")
    same(ports(policy("cluster")["egress"]), [53, 53, 6379, 7001])
    same(ports(policy("everything-on", "demo-gr")["egress"]), [53, 53, 6379, 4318])
    off = policy("everything-off")
    same((off["egress"], off["policyTypes"]), (None, ["Ingress", "Egress"]), "the embedded store needs nobody")


@rule
def the_bundled_redis_speaks_with_nodes_alone():
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
def every_node_is_scraped_once_under_the_name_that_the_alerts_know():
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
