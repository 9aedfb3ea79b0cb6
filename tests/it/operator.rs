//! The operator's tools: the program's own commands, the metrics and their page, the log.

use std::collections::BTreeMap;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::support::client::RawClient;
use super::support::cluster::{Cluster, Kind, Node, Options, PATIENCE};
use super::support::eventually;

/// The program, with none of this machine's settings.
fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gitorial-relay"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RELAY_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn output(mut command: Command) -> Output {
    timeout(PATIENCE, command.output()).await.expect("it ends in time").expect("it starts")
}

/// The program, running.
fn piped(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

/// Its output, if it succeeds.
async fn done(args: &[&str]) -> String {
    good(&output(program(args)).await)
}

fn good(output: &Output) -> String {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one sentence that it prints when it fails with this exit code.
async fn complaint(code: i32, args: &[&str]) -> String {
    bad(code, &output(program(args)).await)
}

fn bad(code: i32, output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(text.lines().count() == 1 && output.stdout.is_empty(), "{output:?}");
    text
}

/// A running `watch`.
struct Watcher {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    seen: Vec<String>,
}

impl Watcher {
    fn start(args: &[&str]) -> Self {
        let mut child = program(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (tell, lines) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stdout.next_line().await {
                // The test may be over.
                let _ = tell.send(line);
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// The next line that contains this.
    async fn line(&mut self, says: impl Fn(&str) -> bool) -> String {
        let found = async {
            loop {
                let line = self.lines.recv().await.unwrap_or_else(|| panic!("it ended after {:?}", self.seen));
                self.seen.push(line.clone());
                if says(&line) {
                    return line;
                }
            }
        };
        let found = timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("no such line in {:?}", self.seen))
    }

    /// The next event of this kind.
    async fn event(&mut self, kind: &str) -> Value {
        let of_kind = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|line| line["event"] == kind);
        serde_json::from_str(&self.line(of_kind).await).unwrap()
    }

    async fn ends(&mut self) -> i32 {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").unwrap();
        status.code().expect("by itself")
    }

    async fn interrupt(&self) {
        let id = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
    }
}

async fn client_count(node: &Node, session: &str) -> Value {
    node.get_session(session).await.1["clientCount"].clone()
}

#[tokio::test]
async fn check_config_shows_the_settings_and_hides_secrets() {
    let mut command = program(&["check-config", "--session-ttl", "5m", "--session-listing", "admin"]);
    command.env("RELAY_ADMIN_TOKEN", "hunter2hunter2hunter2").env("RELAY_REDIS_URL", "redis://u:hunter2@h:1");
    let text = good(&output(command).await);
    assert!(text.ends_with("\nthe settings are fine\n") && !text.contains("hunter2"), "{text}");
    let row =
        |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(row("session-ttl"), ["session-ttl", "5m", "--session-ttl"]);
    assert_eq!(row("redis-url"), ["redis-url", "redis://***@h:1", "RELAY_REDIS_URL"]);
    assert_eq!(row("drain-timeout"), ["drain-timeout", "25s", "default"]);
}

#[tokio::test]
async fn check_config_fails_as_serve_does_on_a_wrong_setting() {
    for args in [&["--session-ttl", "soon"][..], &["--session-listing", "admin"], &["--no-such-setting"]] {
        let checked: Vec<&str> = ["check-config"].iter().chain(args).copied().collect();
        assert_eq!(complaint(2, &checked).await, complaint(2, args).await);
    }
}

#[cfg(not(feature = "otlp"))]
#[tokio::test]
async fn a_build_without_otlp_rejects_its_setting() {
    for command in ["serve", "check-config"] {
        let text = complaint(2, &[command, "--otlp-endpoint", "http://127.0.0.1:4318"]).await;
        assert!(text.contains("--otlp-endpoint") && text.contains("--features otlp"), "{text}");
    }
}

#[tokio::test]
async fn a_healthcheck_asks_for_liveness_or_readiness() {
    let cluster = Cluster::embedded().await;
    let url = cluster.near().http();
    assert_eq!(done(&["healthcheck", "--url", &url]).await, format!("{url}/healthz says ok\n"));
    assert_eq!(done(&["healthcheck", "--ready", "--url", &url]).await, format!("{url}/readyz says ready (serving)\n"));
    // In a container it is at the configured address.
    let mut command = program(&["healthcheck", "--ready"]);
    command.env("RELAY_LISTEN", "127.0.0.1:1").env("RELAY_OPS_LISTEN", cluster.near().address());
    good(&output(command).await);
    assert!(complaint(1, &["healthcheck", "--url", "http://127.0.0.1:1"]).await.contains("cannot be reached"));
    assert!(complaint(2, &["healthcheck", "--url", "relay"]).await.contains("--url: \"relay\" is not a node address"));
}

#[tokio::test]
async fn a_node_without_its_redis_is_healthy_and_not_ready() {
    let options =
        Options::short_leases().flag("--redis-url", "redis://127.0.0.1:1").flag("--redis-connect-timeout", "300ms");
    let node = Node::spawn(&options).await;
    done(&["healthcheck", "--url", &node.http()]).await;
    assert!(complaint(1, &["healthcheck", "--ready", "--url", &node.http()]).await.contains("waiting for the store"));
    assert_eq!((node.metric("ready", &[]).await, node.metric("lease_seconds", &[]).await), (0.0, 0.0));
}

#[tokio::test]
async fn the_command_line_creates_shows_and_deletes_a_session() {
    let cluster = Cluster::embedded().await;
    let url = cluster.near().http();
    let metadata = r#"{"tutorial":  "t"}"#;
    let created = done(&[
        "session",
        "create",
        "--url",
        &url,
        "--metadata",
        metadata,
        "--expires-in",
        "30m",
        "--conflict-resolution",
        "deny_both",
    ])
    .await;
    let id = created.trim_end();
    let (status, data) = cluster.near().get_session(id).await;
    assert_eq!((status, &data["metadata"]["tutorial"]), (200, &json!("t")), "{created}");

    let table = done(&["session", "show", id, "--url", &url]).await;
    for row in
        ["status         active", "clients        0", "controller     nobody", r#"metadata       {"tutorial":  "t"}"#]
    {
        assert!(table.lines().any(|line| line == row), "{row}: {table}");
    }
    let shown: Value = serde_json::from_str(&done(&["session", "show", id, "--json", "--url", &url]).await).unwrap();
    assert_eq!((&shown["expiresAt"], &shown["id"]), (&data["expiresAt"], &Value::Null));
    assert!(!table.contains(id));

    assert_eq!(done(&["session", "delete", id, "--url", &url]).await, "session deleted\n");
    for command in ["show", "delete"] {
        let text = complaint(1, &["session", command, id, "--url", &url]).await;
        assert!(text.contains("Session not found") && !text.contains(id), "{text}");
    }
    let created = done(&["session", "create", "--json", "--url", &url]).await;
    assert_eq!(serde_json::from_str::<Value>(&created).unwrap()["status"], "active");
}

#[tokio::test]
async fn sessions_are_listed_only_as_the_node_allows() {
    let token = "0123456789abcdef";
    let admin = Options::default().flag("--session-listing", "admin").flag("--admin-token", token);
    let cluster = Cluster::start(Kind::Embedded, admin).await;
    let url = cluster.near().http();
    let id = cluster.near().create_session(json!({})).await;
    assert!(complaint(1, &["session", "list", "--url", &url]).await.contains("needs the admin token"));
    let listed = done(&["session", "list", "--url", &url, "--admin-token", token]).await;
    assert!(listed.lines().count() == 1 && listed.starts_with(&id), "{listed}");
    let mut command = program(&["session", "list", "--json", "--url", &url]);
    command.env("RELAY_ADMIN_TOKEN", token);
    let listed: Value = serde_json::from_str(&good(&output(command).await)).unwrap();
    assert_eq!(listed[0]["id"], id);
    assert!(!complaint(2, &["session", "list", "--admin-token", "hunter2"]).await.contains("hunter2"));
}

#[tokio::test]
async fn no_error_repeats_a_session_id() {
    let id = "0d6c36c4-9b7c-4ad5-8b0a-3f3f4d0d4a11";
    let nobody = "http://127.0.0.1:1";
    let cases: &[(i32, &[&str])] = &[
        (2, &[id]),
        (2, &["sessio", "show", id]),
        (2, &["session", id]),
        (2, &["session", "show", id, id]),
        (2, &["watch", id, id]),
        (2, &["watch", &id[1..]]),
        (1, &["session", "show", id, "--url", nobody]),
        (1, &["session", "delete", id, "--url", nobody]),
        (1, &["watch", id, "--url", nobody]),
    ];
    for (code, args) in cases {
        let text = complaint(*code, args).await;
        assert!(!text.contains(&id[1..]), "{args:?}: {text}");
    }
}

#[tokio::test]
async fn a_watcher_reports_events_and_follows_its_session_elsewhere() {
    let cluster = Cluster::start(Kind::Redis(2), Options::short_leases()).await;
    let (near, far) = (cluster.near(), cluster.far());
    let session = near.create_session(json!({})).await;
    let mut watcher = Watcher::start(&["watch", &session, "--json", "--url", &near.http(), "--url", &far.http()]);
    let told = watcher.event("watching").await;
    assert_eq!(told["resumed"], false);

    let (driver, _) = RawClient::join_modern(far, &session, "client_a").await;
    assert_eq!(watcher.event("joined").await["client"], "client_a");
    driver.say("coordinate_sync_direction", json!({ "preferredDirection": "ACTIVE", "reason": "user" })).await;
    let active = |line: &str| line.contains("\"active\"") && line.contains("client_a");
    watcher.line(active).await;
    let step = json!({ "stepContent": { "index": 3, "title": "hunter2" } });
    let bytes = step.to_string().len();
    driver.say("state_update", step).await;
    let state = watcher.event("state").await;
    assert_eq!((&state["client"], &state["step"], &state["bytes"]), (&json!("client_a"), &json!(3), &json!(bytes)));

    near.kill9();
    watcher.event("lost").await;
    let back = watcher.event("watching").await;
    assert_eq!((&back["client"], &back["resumed"]), (&told["client"], &json!(true)));
    driver.say("state_update", json!({ "step": 4 })).await;
    let state = watcher.event("state").await;
    assert_eq!((&state["client"], &state["step"]), (&json!("client_a"), &json!(4)));
    let gone = RawClient::join_modern(far, &session, "client_b").await.0;
    assert_eq!(watcher.event("joined").await["client"], "client_b");
    gone.leave().await;
    assert_eq!(watcher.event("left").await["client"], "client_b");

    far.delete_session(&session).await;
    assert_eq!(watcher.event("ended").await["why"], "Session deleted");
    assert_eq!(watcher.ends().await, 0);
    let all = watcher.seen.concat();
    assert!(!all.contains(&session) && !all.contains("hunter2"), "{all}");
}

#[tokio::test]
async fn an_interrupted_watcher_leaves_with_success() {
    let cluster = Cluster::embedded().await;
    let session = cluster.near().create_session(json!({})).await;
    let mut watcher = Watcher::start(&["watch", &session, "--url", &cluster.near().http()]);
    watcher.line(|line| line.contains("Z watching as watch-")).await;
    // It is one of the session's clients, and sends no claims.
    assert_eq!(client_count(cluster.near(), &session).await, 1);
    let client = RawClient::join(cluster.near(), &session, "client_a").await;
    watcher.line(|line| line.ends_with(" joined")).await;
    client.say("state_update", json!({ "step": 1 })).await;
    watcher.line(|line| line.ends_with("client_a is at step 1 (10 bytes)")).await;
    assert_eq!(cluster.near().get_session(&session).await.1["activeClientId"], "client_a");
    watcher.interrupt().await;
    watcher.line(|line| line.ends_with("stopped watching")).await;
    assert_eq!(watcher.ends().await, 0);
    eventually(PATIENCE, async || (client_count(cluster.near(), &session).await == 1).then_some(())).await;
}

#[tokio::test]
async fn a_missing_session_cannot_be_watched() {
    let cluster = Cluster::embedded().await;
    let id = "0d6c36c4-9b7c-4ad5-8b0a-3f3f4d0d4a11";
    let text = complaint(1, &["watch", id, "--url", &cluster.near().http()]).await;
    assert!(text.contains("Session not found") && !text.contains(id), "{text}");
}

#[tokio::test]
async fn completions_have_every_command_and_setting() {
    for shell in ["bash", "zsh", "fish"] {
        let script = done(&["completions", shell]).await;
        for word in
            ["serve", "check-config", "healthcheck", "session", "watch", "completions", "drain-timeout", "expires-in"]
        {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    assert!(complaint(2, &["completions", "sh"]).await.contains("bash"));
}

/// Name, type and labels of every metric.
type Metrics = BTreeMap<String, (String, Vec<String>)>;

/// As `/metrics` has them.
fn scraped(text: &str) -> Metrics {
    let mut found = Metrics::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some((metric, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            name = metric.to_owned();
            found.insert(name.clone(), (kind.to_owned(), Vec::new()));
        } else if let Some((_, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = labels.rsplit_once('}').expect("labels end").0.split(',');
            let names = labels.filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            found.get_mut(&name).expect("its type comes first").1 = names.filter(|name| name != "le").collect();
        }
    }
    found.values_mut().for_each(|(_, labels)| labels.sort());
    found
}

/// As the page has them.
fn documented(page: &str) -> Metrics {
    let section = page.split("\n## ").find(|section| section.starts_with("Metrics\n")).expect("there is a section");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 6, "{line}");
        assert!(cells.iter().all(|cell| !cell.is_empty()), "{line}");
        let mut labels: Vec<String> = cells[3].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        labels.sort();
        (cells[0].trim_matches('`').to_owned(), (cells[1].to_owned(), labels))
    };
    rows.map(row).collect()
}

#[tokio::test]
async fn the_metrics_page_matches_a_fresh_node() {
    let cluster = Cluster::over_redis(1).await;
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    assert_eq!(documented(&page), scraped(&cluster.near().metrics().await));
}

#[tokio::test]
async fn metrics_show_readiness_and_connections() {
    let cluster = Cluster::embedded().await;
    let node = cluster.near();
    assert_eq!((node.metric("ready", &[]).await, node.metric("draining", &[]).await), (1.0, 0.0));
    let lease = node.metric("lease_seconds", &[]).await;
    assert!(lease > 0.0 && lease <= 4.0, "{lease}");
    let session = node.create_session(json!({})).await;
    let (client, ack) = RawClient::join_modern(node, &session, "client_a").await;
    let query = format!("session={session}&client=client_a&resume={}", ack["resume"].as_str().unwrap());
    client.cut();
    let back = RawClient::connect(&format!("{}/ws?{query}", node.ws()), "client_a").await;
    back.send(json!({ "type": "protocol_handshake", "protocol_version": 1 })).await;
    assert_eq!(back.expect("protocol_ack").await["resumed"], true);
    RawClient::connect(&format!("{}/ws", node.ws()), "nobody").await.expect_close().await;
    for kind in ["new", "resumed", "refused"] {
        assert_eq!(node.metric("joins_total", &[("kind", kind)]).await, 1.0, "{kind}");
    }
    back.leave().await;
    let ended = async || (node.metric("connection_seconds_count", &[]).await >= 2.0).then_some(());
    eventually(PATIENCE, ended).await;
}

#[tokio::test]
async fn a_round_trip_to_redis_is_timed_once() {
    let cluster = Cluster::over_redis(1).await;
    let node = cluster.near();
    let heartbeats_aside = async || {
        let text = node.metrics().await;
        let value = |name: &str| {
            let line = text.lines().filter(|line| line.starts_with(&format!("gitorial_relay_{name}")));
            line.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
        };
        let others = ["publish", "subscribe", "ping", "enqueue", "info"];
        let others = others.map(|command| value(&format!("redis_commands_total{{command=\"{command}\"")));
        (value("store_seconds_count"), value("redis_commands_total") - others.iter().sum::<f64>())
    };
    for _ in 0..5 {
        node.create_session(json!({})).await;
    }
    // A command may be between its two counts.
    eventually(PATIENCE, async || {
        let (timed, sent) = heartbeats_aside().await;
        (timed == sent && sent > 10.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_ended_connection_is_one_log_line_with_its_counters() {
    let cluster = Cluster::start(Kind::Embedded, Options::default().flag("--log-format", "json")).await;
    let node = cluster.near();
    let session = node.create_session(json!({})).await;
    let follower = RawClient::join(node, &session, "client_b").await;
    let driver = RawClient::join(node, &session, "client_a").await;
    follower.expect("client_connected").await;
    driver.expect("client_connected").await;
    driver.say("state_update", json!({ "step": 1 })).await;
    follower.expect("state_update").await;
    driver.send_text("hello").await;
    driver.expect_rejected("").await;
    let received: usize = driver.all().iter().map(|frame| frame.to_string().len()).sum();
    driver.leave().await;
    let ended = eventually(PATIENCE, async || {
        let lines: Vec<Value> = node.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.into_iter().find(|line| line["message"] == "connection ended")
    })
    .await;
    assert_eq!((&ended["level"], &ended["reason"], &ended["seconds"]), (&json!("INFO"), &json!("client"), &json!(0)));
    assert_eq!((&ended["frames_in"], &ended["refused"], &ended["conflated"]), (&json!(2), &json!(1), &json!(0)));
    let sent = json!({ "type": "state_update", "clientId": "client_a", "data": { "step": 1 }, "timestamp": 1, "protocol_version": 1 });
    assert_eq!(ended["bytes_in"], sent.to_string().len() + "hello".len());
    assert!(
        ended["frames_out"].as_u64() >= Some(3) && ended["bytes_out"].as_u64() >= Some(received as u64 / 2),
        "{ended}"
    );
    assert!(ended["session"].is_string() && ended["connection"].is_string());
    assert!(!node.log().contains(&session));
}

#[tokio::test]
async fn the_operations_page_has_every_command() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    for (args, prefix) in [(&["--help"][..], ""), (&["session", "--help"], "session ")] {
        let help = done(args).await;
        let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        let commands: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
        assert!(commands.len() >= 4, "{help}");
        for command in commands.into_iter().filter(|command| *command != "session") {
            assert!(page.contains(&format!("`{prefix}{command}")), "docs/operations.md lacks {prefix}{command}");
        }
    }
}

#[tokio::test]
async fn selftest_sends_a_frame_between_nodes_and_cleans_up() {
    let cluster = Cluster::start(Kind::Redis(2), Options::default().flag("--session-listing", "public")).await;
    let (near, far) = (cluster.near().http(), cluster.far().http());
    let said = done(&["selftest", "--url", &near, "--url", &far, "--nodes", "2"]).await;
    assert!(said.starts_with("a frame went from http://") && said.contains(" to http://"), "{said}");
    let (_, sessions) = cluster.near().answer(reqwest::Method::GET, "/api/sessions").await;
    assert_eq!(sessions, json!([]), "its session is deleted");
}

#[tokio::test]
async fn selftest_says_what_is_missing() {
    let cluster = Cluster::embedded().await;
    let near = cluster.near().http();
    assert!(done(&["selftest", "--url", &near]).await.contains("a frame went"));
    let once = ["--retry-for", "0s"];
    let few = complaint(1, &[&["selftest", "--url", &near, "--nodes", "2"], &once[..]].concat()).await;
    assert!(few.contains("1 of 2 nodes"), "{few}");
    let other = Cluster::embedded().await;
    let other = other.near().http();
    let apart = complaint(1, &[&["selftest", "--url", &near, "--url", &other], &once[..]].concat()).await;
    assert!(apart.contains("closed the connection"), "two embedded stores do not share sessions: {apart}");
    let away = complaint(1, &[&["selftest", "--url", "http://127.0.0.1:9"], &once[..]].concat()).await;
    assert!(away.contains("cannot be reached"), "{away}");
}

/// Right after an installation a cluster's network does not know the test's pod yet, and names are not known yet.
#[tokio::test]
async fn selftest_waits_for_a_node_that_cannot_be_reached_yet() {
    let place = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = place.local_addr().unwrap().to_string();
    drop(place);
    let url = format!("http://{address}");
    let mut child = piped(program(&["selftest", "--url", &url]));
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let waits = timeout(PATIENCE, said.next_line()).await.unwrap().unwrap().unwrap();
    assert!(waits.starts_with("gitorial-relay: waiting up to 4") && waits.contains("cannot be reached"), "{waits}");
    let _node = piped(program(&["serve", "--listen", &address]));
    let output = timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("a frame went from"));
}

#[tokio::test]
async fn selftest_gives_up_with_the_last_cause() {
    let output = output(program(&["selftest", "--url", "http://127.0.0.1:9", "--retry-for", "1500ms"])).await;
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((output.status.code(), lines.len(), output.stdout.len()), (Some(1), 2, 0), "{said}");
    assert!(lines[1].starts_with("gitorial-relay: gave up after ") && lines[1].contains("cannot be reached"), "{said}");
}

#[tokio::test]
async fn selftest_does_not_repeat_a_wrong_command() {
    let wrong = complaint(2, &["selftest", "--url", "https://127.0.0.1:9"]).await;
    assert!(wrong.contains("uses TLS"), "{wrong}");
}

#[tokio::test]
async fn every_line_of_a_node_with_json_logs_is_json() {
    let read = |text: &str| text.lines().map(|line| serde_json::from_str(line).expect(line)).collect::<Vec<Value>>();
    let mut child = piped(program(&["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    let first = read(&first).remove(0);
    let address = first["message"].as_str().unwrap().strip_prefix("listening on http://").expect("the address");
    assert_eq!((&first["level"], first["timestamp"].is_string()), (&json!("INFO"), true));
    let taken = output(program(&["--listen", address, "--log-format=json"])).await;
    assert_eq!((taken.status.code(), taken.stdout.len()), (Some(1), 0));
    let said = read(&String::from_utf8(taken.stderr).unwrap());
    assert!(said.iter().any(|line| line["message"].as_str().unwrap().contains("cannot listen on")), "{said:?}");
    child.start_kill().unwrap();
    let log = read(&String::from_utf8(child.wait_with_output().await.unwrap().stderr).unwrap());
    let starting = log.iter().find(|line| line["message"] == "starting").expect("the first line of the log");
    assert_eq!(starting["version"], env!("CARGO_PKG_VERSION"));
    // A setting that cannot be read, and the settings of the image.
    let mut wrong = program(&["serve", "--session-ttl", "soon"]);
    wrong.env("RELAY_LOG_FORMAT", "json");
    let said = bad(2, &output(wrong).await);
    assert!(read(&said)[0]["message"].as_str().unwrap().contains("is not a duration"), "{said}");
    // What an operator asks for is always text.
    let mut shown = program(&["selftest"]);
    shown.env("RELAY_LOG_FORMAT", "json");
    assert!(bad(2, &output(shown).await).starts_with("gitorial-relay: "));
}
