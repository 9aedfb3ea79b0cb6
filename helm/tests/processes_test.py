"""Runs the rendered chart as processes on this machine: the relay with the environment of its pods, and Redis with its
configuration file."""

import contextlib
import hashlib
import json
import os
import pathlib
import queue
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

from support import chart
from support.rules import for_each, rule, same

RELAY = os.environ["RELAY_BINARY"]
PATIENCE = 20


def until(check, what):
    """Waits until a check returns a value, up to a deadline."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = check()
        if found is not None:
            return found
        time.sleep(0.02)
    raise AssertionError(f"timed out after {PATIENCE} s waiting for {what}")


def get(url, method="GET", body=None):
    """The status and the text of an answer."""
    request = urllib.request.Request(url, method=method, data=body)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def free_port():
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def process(command, env):
    """A program with only this environment, killed at the end. The lines of its standard output go into a queue."""
    program = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    program.lines, program.said = queue.Queue(), []

    def read(stream, take):
        for line in stream:
            take(line.rstrip("\n"))

    threads = [
        threading.Thread(target=read, args=(program.stdout, program.lines.put), daemon=True),
        threading.Thread(target=read, args=(program.stderr, program.said.append), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield program
    finally:
        if program.poll() is None:
            program.kill()
        program.wait()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def node(env):
    """A node with the environment of a pod, on ports of this machine. Yields the program and its two addresses."""
    ops = free_port()
    arguments = [RELAY, "serve", "--listen", "127.0.0.1:0", "--ops-listen", f"127.0.0.1:{ops}"]
    with process(arguments, env) as program:
        try:
            line = program.lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"the relay does not start: {program.said}") from None
        if env.get("RELAY_LOG_FORMAT") == "json":
            line = json.loads(line)["message"]
        assert line.startswith("listening on http://"), line
        yield program, line.removeprefix("listening on "), f"http://127.0.0.1:{ops}"


def end(program):
    """Sends SIGTERM to a program and waits for its exit."""
    program.send_signal(signal.SIGTERM)
    try:
        same(program.wait(timeout=PATIENCE), 0, "exit code")
    except subprocess.TimeoutExpired:
        raise AssertionError(f"the relay does not exit: {program.said}") from None


def usable(env):
    """A pod's environment with placeholders for external values and an unreachable Redis."""
    filled = {name: re.sub("<.*?>", "filled-in-elsewhere", value) for name, value in env.items()}
    if env.get("RELAY_REDIS_URL", "").startswith("<"):
        filled["RELAY_REDIS_URL"] = "redis://127.0.0.1:1"
    if "RELAY_REDIS_URL" in filled:
        filled.update(RELAY_REDIS_FAIL_FAST="false", RELAY_REDIS_CONNECT_TIMEOUT="100ms")
    filled.pop("SSL_CERT_FILE", None)
    return filled


@for_each(chart.MATRIX)
def the_relay_accepts_the_environment_of_its_pods(name):
    env = usable(chart.environment(chart.render(name)))
    with node(env) as (program, _, ops):
        same(get(f"{ops}/healthz")[0], 200)
        end(program)


@rule
def the_relay_refuses_an_invalid_environment():
    env = {**chart.environment(chart.render("defaults")), "RELAY_DRAIN_TIMEOUT": "25"}
    with process([RELAY, "serve"], env) as program:
        same(program.wait(timeout=PATIENCE), 2, "exit code")


@rule
def a_pod_answers_its_probes_and_has_the_scaling_metric():
    documents = chart.render("defaults")
    box = chart.container(documents)
    env = chart.environment(documents)
    with node(env) as (program, clients, ops):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = box[probe]["httpGet"]["path"]
            until(lambda path=path: True if get(ops + path)[0] == 200 else None, path)
            same(get(clients + path)[0], 404, f"{path} on the port for clients")
        endpoint = chart.only(chart.render("production"), "PodMonitor")["spec"]["podMetricsEndpoints"][0]
        metric = chart.only(chart.render("production"), "HorizontalPodAutoscaler")["spec"]["metrics"][1]["pods"][
            "metric"
        ]
        lines = get(ops + endpoint["path"])[1].splitlines()
        assert f"{metric['name']} 0" in lines, "the autoscaler's metric is missing"
        end(program)


@contextlib.contextmanager
def redis(folder, conf, *arguments):
    """A Redis server with this configuration in this folder. Yields its process when it accepts connections."""
    path = pathlib.Path(folder) / f"{free_port()}.conf"
    path.write_text(conf, encoding="utf-8")
    with process(["redis-server", str(path), *arguments], {"PATH": os.environ["PATH"]}) as program:

        def answers():
            assert program.poll() is None, "redis-server has exited: " + " ".join(list(program.lines.queue))
            return (
                any("accept connections" in line or "Sentinel ID" in line for line in list(program.lines.queue)) or None
            )

        until(answers, "Redis accepts connections")
        yield program


def ask(*words):
    """The output of redis-cli."""
    done = subprocess.run(
        ["redis-cli", "--no-auth-warning", *words], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    return done.stdout


def hashed(password):
    """The hash of a password for an access list of Redis. A hash allows any characters in the password."""
    return "#" + hashlib.sha256(password.encode()).hexdigest()


def certificates(folder):
    """Creates an authority and a certificate for this machine. Returns the authority and Redis's settings for them."""
    name = ["-subj", "/CN=localhost", "-days", "2", "-newkey", "rsa:2048", "-nodes"]
    extension = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    files = {part: f"{folder}/{part}.pem" for part in ("ca", "ca-key", "key", "request", "own", "san")}
    pathlib.Path(files["san"]).write_text(extension, encoding="utf-8")
    signed = ["-CA", files["ca"], "-CAkey", files["ca-key"], "-CAcreateserial", "-days", "2", "-extfile", files["san"]]
    for command in (
        ["req", "-x509", *name, "-keyout", files["ca-key"], "-out", files["ca"]],
        ["req", *name[:2], *name[4:], "-keyout", files["key"], "-out", files["request"]],
        ["x509", "-req", "-in", files["request"], *signed, "-out", files["own"]],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True, timeout=PATIENCE)
    return files["ca"], (
        f"tls-ca-cert-file {files['ca']}\ntls-cert-file {files['own']}\ntls-key-file {files['key']}\ntls-auth-clients no\n"
    )


def ready(env):
    """Whether a node with this environment becomes ready. Stops the node."""
    with node(env) as (program, _, ops):

        def answer():
            status, text = get(f"{ops}/readyz")
            return True if status == 200 else None if json.loads(text)["reason"] == "starting" else False

        found = until(answer, "the readiness of the node")
        end(program)
        return found


@rule
def a_node_reaches_a_redis_with_tls_and_access_lists():
    password = chart.read_values("tls-acl")["redis"]["external"]["password"]
    env = chart.environment(chart.render("tls-acl"))
    with tempfile.TemporaryDirectory() as folder:
        authority, tls = certificates(folder)
        port = free_port()
        user = f"user default off\nuser relay on {hashed(password)} ~* &* +@all\n"
        with redis(folder, f"bind 127.0.0.1\nport 0\ntls-port {port}\nsave ''\ndir {folder}\n{tls}{user}"):
            env["RELAY_REDIS_URL"] = env["RELAY_REDIS_URL"].replace("redis.example.org:6380", f"localhost:{port}")
            assert env["SSL_CERT_FILE"].endswith("/ca.pem")
            env["SSL_CERT_FILE"] = authority
            same(ready(env), True, "ready")
            stranger = {**env, "RELAY_REDIS_CONNECT_TIMEOUT": "300ms"}
            del stranger["SSL_CERT_FILE"]
            same(ready(stranger), False, "ready without the authority")


@rule
def a_node_finds_its_redis_through_sentinels():
    env = chart.environment(chart.render("sentinel"))
    with tempfile.TemporaryDirectory() as folder:
        server, sentinel = free_port(), free_port()
        conf = f"bind 127.0.0.1\nport {server}\nsave ''\ndir {folder}\nrequirepass of-the-server\n"
        watch = (
            f"bind 127.0.0.1\nport {sentinel}\ndir {folder}\nsentinel monitor mymaster 127.0.0.1 {server} 1\n"
            "sentinel auth-pass mymaster of-the-server\n"
            f"user watcher on {hashed('of-the-sentinels')} ~* &* +@all\nuser default off\n"
        )
        with redis(folder, conf), redis(folder, watch, "--sentinel"):
            url = env["RELAY_REDIS_URL"].replace("<redis/redis-password>", "of-the-server")
            url = url.replace("<redis/sentinel-password>", "of-the-sentinels")
            # Only the last of the three Sentinels runs.
            url = url.replace("sentinel-0.redis:26379", "127.0.0.1:1").replace("sentinel-1.redis:26379", "127.0.0.1:2")
            env["RELAY_REDIS_URL"] = url.replace("sentinel-2.redis:26380", f"127.0.0.1:{sentinel}")
            same(ready(env), True, "ready")
            wrong = env["RELAY_REDIS_URL"].replace("mymaster", "nobodys")
            same(ready({**env, "RELAY_REDIS_URL": wrong, "RELAY_REDIS_CONNECT_TIMEOUT": "300ms"}), False, "ready")


@rule
def a_node_reaches_a_redis_cluster():
    env = chart.environment(chart.render("cluster"))
    with tempfile.TemporaryDirectory() as folder:
        authority, tls = certificates(folder)
        port, bus = free_port(), free_port()
        user = f"user relay on {hashed('of-the-cluster')} ~* &* +@all\n"
        conf = (
            f"bind 127.0.0.1\nport 0\ntls-port {port}\ncluster-port {bus}\ncluster-enabled yes\ntls-cluster yes\n"
            f"cluster-announce-ip 127.0.0.1\nsave ''\ndir {folder}\n{tls}{user}"
        )
        with redis(folder, conf):
            cli = ("--tls", "--cacert", authority, "-h", "localhost", "-p", str(port))
            ask(*cli, "cluster", "addslotsrange", "0", "16383")
            until(lambda: True if "cluster_state:ok" in ask(*cli, "cluster", "info") else None, "a cluster")
            url = env["RELAY_REDIS_URL"].replace("<redis/password>", "of-the-cluster")
            env["RELAY_REDIS_URL"] = url.replace("node-0.redis:6379", "localhost:1").replace(
                "node-1.redis:7001", f"localhost:{port}"
            )
            env["SSL_CERT_FILE"] = authority
            same(ready(env), True, "ready")


@rule
def two_nodes_share_sessions_over_the_bundled_redis():
    documents = chart.render("bundled")
    env = chart.environment(documents)
    conf = chart.only(documents, "Secret", "-redis")["stringData"]["redis.conf"]
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        conf = conf.replace("dir /data", f"dir {folder}") + f"bind 127.0.0.1\nport {port}\n"
        with redis(folder, conf):
            host = chart.only(documents, "StatefulSet")["metadata"]["name"] + ":6379"
            assert host in env["RELAY_REDIS_URL"], "the relay does not know the bundled Redis"
            env["RELAY_REDIS_URL"] = env["RELAY_REDIS_URL"].replace(host, f"127.0.0.1:{port}")
            with node({**env, "RELAY_NODE_ID": "left"}) as left, node({**env, "RELAY_NODE_ID": "right"}) as right:
                for _, _, ops in (left, right):
                    until(lambda ops=ops: True if get(f"{ops}/readyz")[0] == 200 else None, "both nodes ready")
                status, text = get(f"{left[1]}/api/sessions", "POST", b"{}")
                same(status, 201)
                same(get(f"{right[1]}/api/sessions/{json.loads(text)['id']}")[0], 200)
                wrong = {**env, "RELAY_REDIS_URL": env["RELAY_REDIS_URL"].replace("not-a-secret", "wrong")}
                with node({**wrong, "RELAY_REDIS_CONNECT_TIMEOUT": "300ms"}) as (program, _, ops):
                    same(get(f"{ops}/readyz")[0], 503, "readiness with a wrong password")
                    end(program)
                for program, _, _ in (left, right):
                    end(program)


@rule
def sessions_with_clients_outlive_a_change_of_the_bundled_redis_s_password():
    base = chart.read_values("bundled")
    old = base["redis"]["bundled"]["password"]
    # Without a volume: the changed Redis is empty.
    base = chart.merged(base, {"redis": {"bundled": {"persistence": {"enabled": False}}}})
    new = chart.merged(base, {"redis": {"bundled": {"password": "another-password-of-nobody", "previousPassword": old}}})
    port = free_port()

    def parts(values, folder):
        documents = chart.render(values)
        env = chart.environment(documents)
        host = chart.only(documents, "StatefulSet")["metadata"]["name"] + ":6379"
        env["RELAY_REDIS_URL"] = env["RELAY_REDIS_URL"].replace(host, f"127.0.0.1:{port}")
        conf = chart.only(documents, "Secret", "-redis")["stringData"]["redis.conf"]
        return env, conf.replace("dir /data", f"dir {folder}") + f"bind 127.0.0.1\nport {port}\n"

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        (before, conf), (after, changed) = parts(base, folder), parts(new, folder)
        server = stack.enter_context(redis(folder, conf))
        _, clients, ops = stack.enter_context(node({**before, "RELAY_NODE_ID": "old"}))
        until(lambda: True if get(f"{ops}/readyz")[0] == 200 else None, "the old node is ready")
        session = json.loads(get(f"{clients}/api/sessions", "POST", b"{}")[1])["id"]
        stack.enter_context(process([RELAY, "watch", "--url", clients, session], {}))

        def watched():
            return True if json.loads(get(f"{clients}/api/sessions/{session}")[1]).get("clientCount") == 1 else None

        until(watched, "the session has a client")
        server.kill()
        server.wait()
        stack.enter_context(redis(folder, changed))
        _, other, ops = stack.enter_context(node({**after, "RELAY_NODE_ID": "new"}))
        until(lambda: True if get(f"{ops}/readyz")[0] == 200 else None, "the new node is ready")
        until(lambda: True if get(f"{other}/api/sessions/{session}")[0] == 200 else None, "the session is back")
