//! The HTTP API as existing clients and browsers call it (docs/protocol.md, "HTTP API").

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::cluster::{Kind, Options};
use super::support::stage::{Stage, on_both};

on_both! {
    creating_a_session_returns_its_location,
    a_session_may_be_created_without_a_body,
    metadata_is_any_json_and_comes_back_as_it_was,
    a_caller_cannot_choose_an_id,
    ids_are_long_random_and_fit_into_a_url,
    times_are_rfc_3339_with_milliseconds_and_z,
    unknown_members_of_a_request_are_ignored,
    a_wrong_request_is_refused_with_a_sentence_and_a_code,
    a_session_is_the_same_on_every_node,
    an_unknown_session_is_not_found,
    a_deleted_session_is_not_found,
    sessions_are_not_listed_by_default,
    browsers_of_other_origins_may_call,
    health_and_metrics_answer,
}

const SESSIONS: &str = "/api/sessions";

async fn post(stage: &Stage, body: &str) -> (StatusCode, Value) {
    let request = stage.cluster.near().request(Method::POST, SESSIONS).header("content-type", "application/json");
    let answer = request.body(body.to_owned()).send().await.expect("an answer");
    (answer.status(), answer.json().await.expect("json"))
}

async fn creating_a_session_returns_its_location(stage: &Stage) {
    let request =
        stage.cluster.near().request(Method::POST, SESSIONS).json(&json!({ "metadata": { "tutorial": "t" } }));
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::CREATED);
    let location = answer.headers()["location"].to_str().expect("text").to_owned();
    let kind = answer.headers()["content-type"].to_str().expect("text").to_owned();
    assert!(kind.starts_with("application/json"), "{kind}");
    let session: Value = answer.json().await.expect("json");
    assert!(location.ends_with(&format!("{SESSIONS}/{}", session["id"].as_str().expect("an id"))), "{location}");
    assert_eq!((&session["clientCount"], &session["activeClientId"]), (&json!(0), &Value::Null));
    assert_eq!((&session["status"], &session["metadata"]), (&json!("active"), &json!({ "tutorial": "t" })));
    assert!(session.as_object().expect("an object").contains_key("activeClientId"), "null, not absent");
}

async fn a_session_may_be_created_without_a_body(stage: &Stage) {
    let bare = stage.cluster.near().request(Method::POST, SESSIONS).send().await.expect("an answer");
    assert_eq!(bare.status(), StatusCode::CREATED);
    for body in ["", "{}"] {
        let (status, session) = post(stage, body).await;
        assert_eq!(status, StatusCode::CREATED, "{session}");
        assert!(session.get("metadata").is_none(), "no metadata was given: {session}");
    }
}

async fn metadata_is_any_json_and_comes_back_as_it_was(stage: &Stage) {
    for metadata in [json!("text"), json!(7), json!([1, { "b": [], "a": null }]), json!({ "é": 1.5 }), json!(false)] {
        let id = stage.another_session(json!({ "metadata": metadata })).await;
        assert_eq!(stage.cluster.far().get_session(&id).await.1["metadata"], metadata);
    }
}

async fn a_caller_cannot_choose_an_id(stage: &Stage) {
    let mine = "11111111-1111-4111-8111-111111111111";
    let (status, session) = post(stage, &json!({ "id": mine, "sessionId": mine }).to_string()).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_ne!(session["id"], mine);
    assert_eq!(stage.cluster.far().get_session(mine).await.0, 404);
}

async fn ids_are_long_random_and_fit_into_a_url(stage: &Stage) {
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(stage.another_session(json!({})).await);
    }
    let safe = |id: &String| id.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    assert!(ids.iter().all(|id| id.len() >= 22 && safe(id)), "{ids:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20);
}

async fn times_are_rfc_3339_with_milliseconds_and_z(stage: &Stage) {
    let (_, session) = post(stage, r#"{"expiresIn":60000}"#).await;
    let [created, expires, last] = ["createdAt", "expiresAt", "lastActivity"].map(|name| {
        let text = session[name].as_str().expect("text");
        let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{name}");
        humantime::parse_rfc3339(text).expect("a time")
    });
    assert_eq!(expires.duration_since(created).expect("later").as_millis(), 60_000);
    assert_eq!(created, last);
    assert!(created.elapsed().is_ok_and(|age| age.as_secs() < 60));
}

async fn unknown_members_of_a_request_are_ignored(stage: &Stage) {
    let (status, session) = post(stage, r#"{"clientCount":9,"status":"deleted","later":{}}"#).await;
    assert_eq!((status, &session["status"]), (StatusCode::CREATED, &json!("active")));
    assert_eq!(session["clientCount"], 0);
}

fn is_an_error(body: &Value) -> bool {
    let sentence = body["error"].as_str().is_some_and(|text| text.len() > 5);
    let code = body["code"].as_str().is_some_and(|code| code.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
    sentence && code
}

async fn a_wrong_request_is_refused_with_a_sentence_and_a_code(stage: &Stage) {
    for body in
        ["{", "[]", "nonsense", r#"{"conflictResolution":"dice"}"#, r#"{"expiresIn":"soon"}"#, r#"{"expiresIn":-1}"#]
    {
        let (status, answer) = post(stage, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
        assert!(is_an_error(&answer), "{body}: {answer}");
    }
    let huge = json!({ "metadata": "x".repeat(20_000_000) }).to_string();
    let request = stage.cluster.near().request(Method::POST, SESSIONS).header("content-type", "application/json");
    // The node may close the connection before it has read all of it.
    if let Ok(answer) = request.body(huge).send().await {
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
    let (status, answer) = stage.cluster.near().answer(Method::GET, "/api/nothing").await;
    assert!(status == 404 && is_an_error(&answer), "{answer}");
    let (status, answer) = stage.cluster.near().answer(Method::PUT, SESSIONS).await;
    assert!(status == 405 && is_an_error(&answer), "{answer}");
}

async fn a_session_is_the_same_on_every_node(stage: &Stage) {
    let near = stage.cluster.near().get_session(&stage.session).await;
    assert_eq!(near, stage.cluster.far().get_session(&stage.session).await);
    assert_eq!((near.0, &near.1["id"]), (200, &json!(stage.session)));
}

async fn an_unknown_session_is_not_found(stage: &Stage) {
    for id in ["00000000-0000-4000-8000-000000000000", "nonsense", "a%2Fb", "a%20b"] {
        for method in [Method::GET, Method::DELETE] {
            let (status, body) = stage.cluster.near().answer(method, &format!("{SESSIONS}/{id}")).await;
            assert_eq!((status, &body["error"]), (404, &json!("Session not found")), "{id}");
            assert!(is_an_error(&body), "{body}");
        }
    }
}

async fn a_deleted_session_is_not_found(stage: &Stage) {
    let (status, body) = stage.cluster.far().delete_session(&stage.session).await;
    assert_eq!((status, body), (200, json!({ "message": "Session deleted" })));
    for node in stage.cluster.nodes() {
        assert_eq!(node.get_session(&stage.session).await.0, 404);
        assert_eq!(node.delete_session(&stage.session).await.0, 404);
    }
}

async fn sessions_are_not_listed_by_default(stage: &Stage) {
    let (status, body) = stage.cluster.near().answer(Method::GET, SESSIONS).await;
    assert!((400..500).contains(&status) && is_an_error(&body), "{status} {body}");
    assert!(!body.to_string().contains(&stage.session));
}

async fn browsers_of_other_origins_may_call(stage: &Stage) {
    let one = format!("{SESSIONS}/{}", stage.session);
    for (path, method) in [(SESSIONS, "POST"), (one.as_str(), "GET"), (one.as_str(), "DELETE")] {
        let preflight = stage.cluster.near().request(Method::OPTIONS, path);
        let preflight =
            preflight.header("origin", "https://example.org").header("access-control-request-method", method);
        let answer =
            preflight.header("access-control-request-headers", "content-type").send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
        let header = |name: &str| answer.headers().get(name).map_or("", |value| value.to_str().unwrap_or_default());
        assert!(["*", "https://example.org"].contains(&header("access-control-allow-origin")), "{answer:?}");
        let methods = header("access-control-allow-methods");
        assert!(["GET", "POST", "DELETE"].iter().all(|method| methods.contains(method)), "{methods}");
        let headers = header("access-control-allow-headers").to_ascii_lowercase();
        assert!(headers.contains("content-type"), "{headers}");
    }
    for path in [one.as_str(), "/api/sessions/nonsense"] {
        let request = stage.cluster.near().request(Method::GET, path).header("origin", "https://example.org");
        let answer = request.send().await.expect("an answer");
        assert!(answer.headers().contains_key("access-control-allow-origin"), "errors have the header too: {path}");
    }
}

async fn health_and_metrics_answer(stage: &Stage) {
    for node in stage.cluster.nodes() {
        for path in ["/healthz", "/readyz"] {
            let answer = node.request(Method::GET, path).send().await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
        }
        assert!(node.metrics().await.contains("gitorial_relay_connections"));
    }
}

#[tokio::test]
async fn the_session_list_is_for_admins_unless_it_is_public() {
    let admin = Options::default().flag("--session-listing", "admin").flag("--admin-token", "letmein-letmein-letmein");
    let stage = Stage::with(Kind::Embedded, admin, json!({})).await;
    let list = async |token: Option<&str>| {
        let request = stage.cluster.near().request(Method::GET, SESSIONS);
        let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("json"))
    };
    for token in [None, Some("wrong"), Some("")] {
        let (status, body) = list(token).await;
        assert!(status == 401 || status == 403, "{token:?}: {status}");
        assert!(is_an_error(&body) && !body.to_string().contains(&stage.session), "{body}");
    }
    let (status, body) = list(Some("letmein-letmein-letmein")).await;
    assert_eq!((status, &body[0]["id"]), (200, &json!(stage.session)));
    let public = Options::default().flag("--session-listing", "public");
    for kind in [Kind::Embedded, Kind::Redis(2)] {
        let stage = Stage::with(kind, public.clone(), json!({})).await;
        let other = stage.another_session(json!({ "metadata": 1 })).await;
        let (status, body) = stage.cluster.far().answer(Method::GET, SESSIONS).await;
        let mut ids: Vec<_> = body.as_array().expect("a list").iter().map(|session| session["id"].clone()).collect();
        ids.sort_by_key(Value::to_string);
        let mut expected = [json!(stage.session), json!(other)];
        expected.sort_by_key(Value::to_string);
        assert_eq!((status, ids.as_slice()), (200, expected.as_slice()));
    }
}

#[tokio::test]
async fn origins_that_are_not_configured_are_refused() {
    let options = Options::default().flag("--allowed-origins", "https://tutorials.example");
    let stage = Stage::with(Kind::Embedded, options, json!({})).await;
    let allowed = async |origin: &str| {
        let request = stage.cluster.near().request(Method::GET, "/api/sessions/nonsense").header("origin", origin);
        let answer = request.send().await.expect("an answer");
        let header = answer.headers().get("access-control-allow-origin");
        header.is_some_and(|value| value == origin || value == "*")
    };
    assert!(allowed("https://tutorials.example").await);
    assert!(!allowed("https://evil.example").await);
}
