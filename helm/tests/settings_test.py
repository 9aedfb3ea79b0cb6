"""The settings and secrets of the relay."""

import json
import re
import urllib.parse

from support import chart
from support.chart import environment, merged, only, pod_of, relay, render, template
from support.rules import for_each, rule, same

OWN = {"listen", "ops-listen", "redis-url", "admin-token", "cluster-secret", "node-id"}
SCHEMA = json.loads((chart.CHART / "values.schema.json").read_text(encoding="utf-8"))
EXTERNAL = {"redis": {"mode": "external"}}


def settings():
    """The names of the relay's settings, from its example file."""
    text = (chart.ROOT / "config.example.toml").read_text(encoding="utf-8")
    return set(re.findall(r"^(?:#: )?([a-z-]+) = ", text, re.MULTILINE))


@rule
def the_chart_has_every_setting_of_the_relay():
    same(set(SCHEMA["properties"]["config"]["properties"]), settings() - OWN)
    same(set(chart.read_values("everything-on")["config"]) | {"redis-wait-replicas"}, settings() - OWN, "everything-on")


@rule
def settings_reach_the_relay_unchanged():
    env = environment(render("everything-on"))
    same(env["RELAY_SESSION_TTL"], "1h 30m")
    same(env["RELAY_WS_PATHS"], "/,/ws,/live")
    same(env["RELAY_PATH_PREFIX"], "/relay")
    same(env["RELAY_DEMO_PAGE"], "false")
    same(env["RELAY_REDIS_FAIL_FAST"], "true")
    same(env["RELAY_MAX_CONNECTIONS"], "50000")
    same(env["RELAY_LOG_LEVEL"], "info,gitorial_relay::http=debug")
    same(environment(render("production"))["RELAY_MAX_CONNECTIONS"], "1000000")
    # YAML reads an unquoted off as false.
    off = environment(render({"config": {"session-listing": False, "log-level": False}}))
    same((off["RELAY_SESSION_LISTING"], off["RELAY_LOG_LEVEL"]), ("off", "off"))


@rule
def the_default_drain_timeout_is_that_of_the_relay():
    example = (chart.ROOT / "config.example.toml").read_text(encoding="utf-8")
    assert 'drain-timeout = "25s"' in example
    unset = {"config": {"drain-timeout": None}}
    same(pod_of(relay(render(unset)))["terminationGracePeriodSeconds"], 35)
    assert "RELAY_DRAIN_TIMEOUT" not in environment(render(unset))


def address(external, **more):
    """The address of Redis that the relay gets."""
    return environment(render(merged(EXTERNAL, {"redis": {"external": external}, **more})))["RELAY_REDIS_URL"]


@rule
def an_address_is_built_from_hosts():
    same(address({"hosts": ["redis"]}), "redis://redis:6379/0")
    same(address({"hosts": ["redis:7000"], "tls": True, "database": 4}), "rediss://redis:7000/4")
    same(address({"hosts": ["redis"], "password": "secret"}), "redis://:secret@redis:6379/0")
    same(address({"hosts": ["redis"], "username": "me", "password": "x"}), "redis://me:x@redis:6379/0")
    same(address({"hosts": ["a", "b:7001"], "topology": "cluster"}), "redis-cluster://a:6379?node=b:7001")
    same(address({"hosts": ["a"], "topology": "cluster", "tls": True}), "rediss-cluster://a:6379")
    sentinel = {"hosts": ["a", "b"], "topology": "sentinel", "database": 1, "sentinel": {"service": "main"}}
    same(address(sentinel), "redis-sentinel://a:26379/1?node=b:26379&sentinelServiceName=main")
    acl = {**sentinel, "tls": True, "password": "x", "sentinel": {"service": "main", "username": "s", "password": "y"}}
    same(
        address(acl),
        "rediss-sentinel://:x@a:26379/1" "?node=b:26379&sentinelServiceName=main&sentinelUsername=s&sentinelPassword=y",
    )
    whole = "redis-cluster://u:p@a:1?node=b:2"
    same(address({"url": whole}), whole)


@rule
def an_address_escapes_every_password():
    odd = "".join(map(chr, range(33, 127))) + "ü€"
    url = urllib.parse.urlsplit(address({"hosts": ["redis"], "username": odd, "password": odd}))
    same((urllib.parse.unquote(url.username), urllib.parse.unquote(url.password)), (odd, odd))
    same((url.hostname, url.port, url.path), ("redis", 6379, "/0"))
    sentinel = {"service": odd, "username": odd, "password": odd}
    url = urllib.parse.urlsplit(address({"hosts": ["a"], "topology": "sentinel", "sentinel": sentinel}))
    same(
        urllib.parse.parse_qs(url.query),
        {
            "sentinelServiceName": [odd],
            "sentinelUsername": [odd],
            "sentinelPassword": [odd],
        },
    )


@rule
def the_kubelet_inserts_a_password_from_an_existing_secret():
    env = environment(render("sentinel"))
    same(env["REDIS_PASSWORD"], "<redis/redis-password>")
    same(env["SENTINEL_PASSWORD"], "<redis/sentinel-password>")
    same(
        env["RELAY_REDIS_URL"],
        "redis-sentinel://:<redis/redis-password>@sentinel-0.redis:26379/0"
        "?node=sentinel-1.redis:26379&node=sentinel-2.redis:26380"
        "&sentinelServiceName=mymaster&sentinelUsername=watcher&sentinelPassword=<redis/sentinel-password>",
    )
    names = [one["name"] for one in chart.container(render("sentinel"))["env"]]
    assert names.index("REDIS_PASSWORD") < names.index("RELAY_REDIS_URL"), "the kubelet inserts only variables that come before"
    assert "Secret" not in chart.kinds(render("sentinel"))


@rule
def existing_secrets_are_referenced_and_not_copied():
    documents = render("production")
    assert "Secret" not in chart.kinds(documents)
    env = environment(documents)
    same(env["RELAY_REDIS_URL"], "<relay-redis/redis-url>")
    same(env["RELAY_ADMIN_TOKEN"], "<relay-admin/admin-token>")
    same(env["RELAY_CLUSTER_SECRET"], "<relay-cluster/cluster-secret>")


@rule
def secrets_are_only_in_secret_objects():
    secrets = {
        "tls-acl": ["p@ss/w:rd?#&+%$(X)", urllib.parse.quote("p@ss/w:rd?#&+%$(X)", safe="")],
        "bundled": ["not-a-secret-of-anybody"],
        "gateway": ["secret-in-a-url"],
        "everything-on": ["an-admin-token-of-24-letters", "a-secret-of-the-nodes", "not-a-secret-of-anybody"],
    }
    for name, words in secrets.items():
        documents = render(name)
        public = json.dumps([one for one in documents if one["kind"] != "Secret"])
        held = json.dumps([one for one in documents if one["kind"] == "Secret"])
        for word in words:
            assert json.dumps(word)[1:-1] not in public, f"{name} shows {word}"
        assert any(word in held for word in words), f"{name} has no secret"
    assert "an-admin-token" not in chart.notes("everything-on")


@rule
def without_redis_the_relay_gets_no_address():
    assert "RELAY_REDIS_URL" not in environment(render("defaults"))
    same([one for one in chart.kinds(render("defaults")) if one in ("Secret", "StatefulSet")], [])


@rule
def the_relay_trusts_a_private_authority():
    for name, kind, key in (("tls-acl", "configMap", "ca.pem"), ("cluster", "secret", "ca.crt")):
        documents = render(name)
        path = environment(documents)["SSL_CERT_FILE"]
        mount = chart.container(documents)["volumeMounts"][0]
        volume = pod_of(relay(documents))["volumes"][0]
        same(volume["name"], mount["name"])
        same(path, f"{mount['mountPath']}/{volume[kind]['items'][0]['path']}")
        same(volume[kind]["items"][0]["key"], key)


def checksums(values, **how):
    """The checksums that the relay's pods carry."""
    annotations = relay(render(values, **how))["spec"]["template"]["metadata"]["annotations"]
    return {name: value for name, value in annotations.items() if name.startswith("checksum/")}


@rule
def a_change_of_settings_or_secrets_is_a_new_revision():
    base = chart.read_values("everything-on")
    setting = checksums(merged(base, {"config": {"log-level": "debug"}}))
    token = checksums(merged(base, {"adminToken": {"value": "another-token-of-letters"}}))
    same({name for name, value in checksums(base).items() if setting[name] != value}, {"checksum/config"})
    same({name for name, value in checksums(base).items() if token[name] != value}, {"checksum/secret"})


@rule
def a_change_of_other_values_keeps_the_pods():
    base = chart.read_values("everything-on")
    for more in ({"service": {"annotations": {"a": "c"}}}, {"ingress": {"enabled": False}}, {"replicaCount": 7}):
        same(relay(render(merged(base, more)))["spec"]["template"], relay(render(base))["spec"]["template"], str(more))


@for_each(["bundled", "everything-on"])
def the_bundled_redis_never_evicts_and_needs_a_password(name):
    documents = render(name)
    conf = only(documents, "Secret", "-redis")["stringData"]["redis.conf"].splitlines()
    password = chart.read_values(name)["redis"]["bundled"]["password"]
    assert {"maxmemory-policy noeviction", f"requirepass {password}", "appendonly yes"} <= set(conf), conf
    service = only(documents, "Service", "-redis")
    same(environment(documents)["RELAY_REDIS_URL"], f"redis://:{password}@{service['metadata']['name']}:6379/0")


@rule
def the_bundled_redis_restarts_only_for_its_own_settings():
    base = chart.read_values("bundled")
    redis = only(render(base), "StatefulSet")["spec"]["template"]
    later = merged(base, {"image": {"tag": "10"}, "config": {"log-level": "debug"}, "podLabels": {"a": "b"}})
    same(only(render(later), "StatefulSet")["spec"]["template"], redis)
    assert (
        "helm.sh/chart" not in redis["metadata"]["labels"]
        and "app.kubernetes.io/version" not in redis["metadata"]["labels"]
    )
    fuller = merged(base, {"redis": {"bundled": {"maxmemory": "1gb"}}})
    assert only(render(fuller), "StatefulSet")["spec"]["template"] != redis


@rule
def the_bundled_redis_can_have_two_passwords():
    base = chart.read_values("bundled")
    old = base["redis"]["bundled"]["password"]
    both = merged(base, {"redis": {"bundled": {"password": "another-password-of-nobody", "previousPassword": old}}})
    conf = only(render(both), "Secret", "-redis")["stringData"]["redis.conf"].splitlines()
    assert f"user default on >another-password-of-nobody >{old} ~* &* +@all" in conf, conf
    assert not any(line.startswith("requirepass") for line in conf), conf
    assert ":another-password-of-nobody@" in environment(render(both))["RELAY_REDIS_URL"]
    assert "two passwords of the bundled Redis are valid" in chart.notes(both)
    assert old not in chart.notes(both)


@rule
def a_cluster_can_choose_the_user_of_every_pod():
    nobody = {"runAsUser": None, "runAsGroup": None}
    values = merged(
        chart.read_values("bundled"),
        {
            "podSecurityContext": nobody,
            "redis": {"bundled": {"podSecurityContext": {**nobody, "fsGroup": None}}},
        },
    )
    for one in render(values):
        if pod_of(one):
            context = pod_of(one)["securityContext"]
            same(context, {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}, one["kind"])


@rule
def the_path_of_an_ingress_is_the_relay_s_path_prefix():
    ingress = {"ingress": {"enabled": True, "hosts": ["relay.example.org"], "path": "/relay/"}}
    same(environment(render(ingress))["RELAY_PATH_PREFIX"], "/relay/")
    assert "https://relay.example.org/relay/" in chart.notes(merged(ingress, {"ingress": {"tls": [{"secretName": "a"}]}}))
    own = merged(ingress, {"config": {"path-prefix": "/other"}})
    same(environment(render(own))["RELAY_PATH_PREFIX"], "/other")
    for values in ({}, merged(ingress, {"ingress": {"path": "/"}}), {"ingress": {"path": "/relay"}}):
        assert "RELAY_PATH_PREFIX" not in environment(render(values)), values
    # A pattern of a controller that rewrites paths is no prefix.
    pattern = merged(ingress, {"ingress": {"path": "/relay(/|$)(.*)"}})
    assert "RELAY_PATH_PREFIX" not in environment(render(pattern))


@rule
def persistence_keeps_the_sessions_of_the_bundled_redis():
    spec = only(render("everything-on"), "StatefulSet")["spec"]
    claim = spec["volumeClaimTemplates"][0]["spec"]
    same((claim["storageClassName"], claim["resources"]["requests"]["storage"]), ("fast", "2Gi"))
    trial = merged(chart.read_values("bundled"), {"redis": {"bundled": {"persistence": {"enabled": False}}}})
    spec = only(render(trial), "StatefulSet")["spec"]
    assert (
        "volumeClaimTemplates" not in spec and {"name": "data", "emptyDir": {}} in spec["template"]["spec"]["volumes"]
    )
    assert "appendonly no" in template(trial)
