"""Helm refuses invalid values before it installs anything, with a message that says why."""

from support.chart import merged, refusal, template
from support.rules import for_each, rule, same

SCHEMA = {
    "an unknown value": ({"replicas": 3}, "replicas"),
    "an unknown setting": ({"config": {"drain-timout": "3s"}}, "drain-timout"),
    "a setting that the chart owns": ({"config": {"redis-url": "redis://redis"}}, "redis-url"),
    "an unknown nested value": ({"autoscaling": {"connections": {"average": 5}}}, "average"),
    "an unknown value of a probe": ({"probes": {"readiness": {"period": 5}}}, "period"),
    "a duration without a unit": ({"config": {"drain-timeout": 25}}, "drain-timeout"),
    "a duration in words": ({"config": {"session-ttl": "half an hour"}}, "session-ttl"),
    "a number in words": ({"config": {"max-connections": "lots"}}, "max-connections"),
    "a number out of range": ({"config": {"max-frame-bytes": 12}}, "max-frame-bytes"),
    "no node": ({"replicaCount": 0}, "replicaCount"),
    "half a node": ({"replicaCount": 1.5}, "replicaCount"),
    "an invalid port": ({"service": {"port": 80000}}, "port"),
    "an unknown kind of Redis": ({"redis": {"mode": "internal"}}, "mode"),
    "an invalid address": ({"redis": {"external": {"url": "http://redis"}}}, "url"),
    "a host with a scheme": ({"redis": {"external": {"hosts": ["redis://redis"]}}}, "hosts"),
    "a short password": ({"redis": {"bundled": {"password": "short"}}}, "password"),
    "a password that needs escaping": ({"redis": {"bundled": {"password": "0123456789abcde@"}}}, "password"),
    "a password with a space": (
        {"redis": {"external": {"password": "a b"}}},
        "password",
    ),
    "a short token": ({"adminToken": {"value": "short"}}, "value"),
    "a short cluster secret": ({"clusterSecret": {"value": "0123456789abcdef,short"}}, "value"),
    "an invalid digest": ({"image": {"digest": "latest"}}, "digest"),
    "an unknown strategy": ({"config": {"conflict-resolution": "toss_a_coin"}}, "conflict-resolution"),
    "a text for a boolean": ({"ingress": {"enabled": "yes please"}}, "enabled"),
    "a list for a map": ({"nodeSelector": ["linux"]}, "nodeSelector"),
    "a label with a number": ({"podLabels": {"a": 1}}, "podLabels"),
    "an invalid peer": ({"networkPolicy": {"clients": [{"pods": {}}]}}, "pods"),
    "an environment variable without a name": ({"extraEnv": [{"value": "1"}]}, "name"),
    "a route's time without a unit": ({"httpRoute": {"timeouts": {"request": "5"}}}, "request"),
}

EXTERNAL = {"redis": {"mode": "external", "external": {"hosts": ["redis"]}}}


def hosts(**external):
    """Values for an external Redis with hosts."""
    return merged(EXTERNAL, {"redis": {"external": external}})


TOGETHER = {
    "three nodes without Redis": ({"replicaCount": 3}, "redis.mode is embedded"),
    "scaling without Redis": ({"autoscaling": {"enabled": True}}, "replicaCount must be 1 and autoscaling off"),
    "waiting for replicas without Redis": (
        {"config": {"redis-wait-replicas": 1}},
        "config.redis-wait-replicas needs Redis",
    ),
    "failing fast without Redis": (
        {"config": {"redis-fail-fast": True}},
        "config.redis-fail-fast needs Redis",
    ),
    "an unused address": (
        {"redis": {"external": {"url": "redis://redis"}}},
        "redis.external sets an address, but redis.mode is embedded",
    ),
    "no address": ({"redis": {"mode": "external"}}, "set exactly one of redis.external.url"),
    "two addresses": (hosts(url="redis://other"), "set exactly one of redis.external.url"),
    "options beside a complete address": (
        {"redis": {"mode": "external", "external": {"url": "redis://redis", "tls": True}}},
        "a complete address contains them",
    ),
    "a password beside a complete address": (
        {"redis": {"mode": "external", "external": {"existingSecret": {"name": "a"}, "password": "x"}}},
        "a complete address contains them",
    ),
    "a password twice": (hosts(password="x", passwordSecret={"name": "a"}), "the password or its Secret, not both"),
    "a Sentinel's password twice": (
        hosts(topology="sentinel", sentinel={"service": "m", "password": "x", "passwordSecret": {"name": "a"}}),
        "redis.external.sentinel: set the password or its Secret, not both",
    ),
    "passwords in two ways": (
        hosts(topology="sentinel", password="x", sentinel={"service": "m", "passwordSecret": {"name": "a"}}),
        "both passwords as values or both as Secrets",
    ),
    "Sentinels without a service": (hosts(topology="sentinel"), "set redis.external.sentinel.service"),
    "a service without Sentinels": (hosts(sentinel={"service": "m"}), "needs redis.external.topology: sentinel"),
    "a database of a cluster": (hosts(topology="cluster", database=1), "a cluster has only database 0"),
    "several hosts of one server": (hosts(hosts=["a", "b"]), "set redis.external.topology to sentinel or cluster"),
    "two authorities": (hosts(ca={"secretName": "a", "configMapName": "b"}), "a Secret or a ConfigMap, not both"),
    "a bundled Redis without a password": ({"redis": {"mode": "bundled"}}, "set redis.bundled.password"),
    "an old password without a bundled Redis": (
        {"redis": {"bundled": {"previousPassword": "0123456789abcdef"}}},
        "redis.bundled.previousPassword is set, but redis.mode is embedded",
    ),
    "a termination time shorter than the drain": (
        {"shutdown": {"terminationGracePeriodSeconds": 34}},
        "shutdown.terminationGracePeriodSeconds is 34, but the sum of preStopSeconds, config.drain-timeout and "
        "slackSeconds is 35",
    ),
    "a termination time shorter than a longer drain": (
        {"config": {"drain-timeout": "2m"}, "shutdown": {"terminationGracePeriodSeconds": 60}},
        "slackSeconds is 130",
    ),
    "listing without a token": (
        {"config": {"session-listing": "admin"}},
        "config.session-listing is admin, which needs a token",
    ),
    "an unused token": (
        {"adminToken": {"value": "0123456789abcdef"}},
        "adminToken is set, but config.session-listing is off",
    ),
    "a token twice": (
        {"adminToken": {"value": "0123456789abcdef", "existingSecret": {"name": "a"}}},
        "the token or its Secret",
    ),
    "a cluster secret for one node": (
        {"clusterSecret": {"value": "0123456789abcdef"}},
        "clusterSecret is set, but redis.mode is embedded",
    ),
    "a cluster secret twice": (
        merged(EXTERNAL, {"clusterSecret": {"value": "0123456789abcdef", "existingSecret": {"name": "a"}}}),
        "the secrets or their Secret",
    ),
    "a minimum above the maximum": (
        merged(EXTERNAL, {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}}),
        "autoscaling.minReplicas is greater",
    ),
    "scaling without a metric": (
        merged(EXTERNAL, {"autoscaling": {"enabled": True, "targetCPUUtilizationPercentage": None}}),
        "autoscaling has no metric",
    ),
    "a percentage without a request": (
        merged(EXTERNAL, {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}}),
        "resources.requests.cpu, which is not set",
    ),
    "an address in extraEnv": (
        {"extraEnv": [{"name": "RELAY_LISTEN", "value": "[::]:1"}]},
        "extraEnv sets RELAY_LISTEN",
    ),
    "a setting in config and in extraEnv": (
        {"extraEnv": [{"name": "RELAY_LOG_FORMAT", "value": "text"}]},
        "extraEnv sets RELAY_LOG_FORMAT",
    ),
    "a selector label in podLabels": (
        {"podLabels": {"app.kubernetes.io/name": "other"}},
        "podLabels sets app.kubernetes.io/name",
    ),
    "two monitors": (
        {"metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}},
        "scrape every node twice",
    ),
    "an Ingress without hosts": ({"ingress": {"enabled": True}}, "ingress.enabled needs ingress.hosts"),
    "a route without Gateways": ({"httpRoute": {"enabled": True}}, "httpRoute.enabled needs httpRoute.parentRefs"),
    "dual stack on an IPv4 listener": ({"service": {"ipFamilyPolicy": "RequireDualStack"}}, "set bindAddress to ::"),
}


@for_each(SCHEMA)
def the_schema_refuses(case):
    values, named = SCHEMA[case]
    for major in (3, 4):
        said = refusal(values, major=major)
        assert "values don't meet the specifications of the schema" in said and named in said, said


@for_each(TOGETHER)
def the_chart_refuses(case):
    values, sentence = TOGETHER[case]
    said = refusal(values)
    assert sentence in said, said


@rule
def every_refusal_has_a_case():
    from support.chart import CHART  # pylint: disable=import-outside-toplevel

    source = (CHART / "templates" / "_validate.tpl").read_text(encoding="utf-8")
    same(len(TOGETHER) >= source.count("fail "), True, f"{source.count('fail ')} refusals, {len(TOGETHER)} cases")
    said = [refusal(values) for values, _ in TOGETHER.values()]
    # running_test.py has this case, because the chart must look at a cluster for it.
    said.append("redis.bundled.password is not the password of the nodes that run now")
    for line in source.splitlines():
        if "fail " in line:
            words = line.split('"')[1].split("%")[0][:30].strip()
            assert any(words in one for one in said), f"no case for: {words}"


@rule
def an_old_kubernetes_is_refused():
    assert "kubeVersion" in refusal({}, kubernetes="1.27")


@rule
def a_parent_chart_may_pass_global_and_enabled():
    assert "kind: Deployment" in template({"global": {"any": "thing"}, "enabled": True})
