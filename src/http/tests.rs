use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use tokio::sync::mpsc;
use tower::ServiceExt;

use super::*;
use crate::broker::{Delivery, MemoryBus};
use crate::metrics::Metrics;
use crate::random::{Random, boot};
use crate::relay::RelaySettings;
use crate::store::MemoryStore;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The code of an error; checks that the body has the one form of errors.
    fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.text).expect(&self.text);
        assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
        assert!(body["error"].as_str().is_some_and(|error| !error.is_empty()), "{body}");
        body["code"].as_str().unwrap().to_owned()
    }
}

/// A relay whose node has not been started, so that it has no lease.
fn relay() -> Relay {
    with_inbox().0
}

fn with_inbox() -> (Relay, mpsc::Receiver<Delivery>) {
    let node = boot("test");
    let (broker, inbox) = MemoryBus::new().join(node.clone());
    let store = Arc::new(MemoryStore::new());
    (Relay::new(node, store, broker, Arc::new(Metrics::new()), RelaySettings::default()), inbox)
}

async fn ask_with(settings: HttpSettings, request: Request<Body>) -> Answer {
    ask_of(relay(), settings, request).await
}

async fn ask_of(relay: Relay, settings: HttpSettings, request: Request<Body>) -> Answer {
    let response = router(relay, settings).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    assert_eq!(parts.headers["x-content-type-options"], "nosniff");
    Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

async fn ask(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    ask_with(HttpSettings::default(), request(method, path, headers, body)).await
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

#[tokio::test]
async fn every_error_has_a_sentence_and_a_code() {
    let big = "x".repeat(30_000);
    let unknown = format!("/api/sessions/{}", crate::ids::SessionId::random().reveal());
    let cases: &[(&str, &str, &str, u16, &str)] = &[
        ("GET", "/nowhere", "", 404, "not_found"),
        ("GET", "/api/nowhere", "", 404, "not_found"),
        ("PUT", "/api/sessions", "", 405, "method_not_allowed"),
        ("POST", "/healthz", "", 405, "method_not_allowed"),
        ("POST", "/ws", "", 405, "method_not_allowed"),
        ("GET", "/ws", "", 426, "upgrade_required"),
        ("GET", &unknown, "", 404, "session_not_found"),
        ("DELETE", &unknown, "", 404, "session_not_found"),
        ("GET", "/api/sessions/abc", "", 404, "session_not_found"),
        ("GET", "/api/sessions/%FF", "", 404, "session_not_found"),
        ("GET", "/api/sessions", "", 403, "listing_off"),
        ("POST", "/api/sessions", "[]", 400, "invalid_json"),
        ("POST", "/api/sessions", &big, 413, "body_too_big"),
    ];
    for (method, path, body, status, code) in cases {
        let answer = ask(method, path, &[], (*body).to_owned()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (*status, *code), "{method} {path}");
    }
    assert!(ask(cases[6].0, &unknown, &[], "").await.text.contains("\"Session not found\""));
}

#[tokio::test]
async fn a_wrong_method_gets_the_allowed_ones() {
    for (path, expected) in [("/api/sessions", "GET,HEAD,POST"), ("/readyz", "GET,HEAD"), ("/ws", "GET,HEAD")] {
        assert_eq!(ask("PATCH", path, &[], "").await.header("allow"), expected, "{path}");
    }
}

#[tokio::test]
async fn a_session_is_created_with_any_content_type() {
    for headers in [&[][..], &[("content-type", "text/plain")], &[("content-type", "application/json")]] {
        for body in ["", "{}", r#"{"metadata":{"a": 1},"unknown":true}"#] {
            let (relay, _inbox) = with_inbox();
            relay.on_tick().await;
            let request = request("POST", "/api/sessions", headers, body);
            let answer = ask_of(relay, HttpSettings::default(), request).await;
            let data: Value = serde_json::from_str(&answer.text).unwrap();
            assert_eq!(answer.status, 201);
            assert_eq!(answer.header("location"), format!("/api/sessions/{}", data["id"].as_str().unwrap()));
            assert_eq!(answer.header("cache-control"), "no-store");
        }
    }
}

#[tokio::test]
async fn browsers_of_allowed_origins_may_call_the_api() {
    let preflight = [
        ("origin", "https://a.example"),
        ("access-control-request-method", "DELETE"),
        ("access-control-request-headers", "content-type,authorization"),
    ];
    let answer = ask("OPTIONS", "/api/sessions/x", &preflight, "").await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (200, "*"));
    assert_eq!(answer.header("access-control-allow-methods"), "GET,POST,DELETE");
    assert_eq!(answer.header("access-control-allow-headers"), "content-type,authorization");
    assert_eq!(answer.header("access-control-max-age"), "86400");
    let answer = ask("GET", "/api/sessions/x", &preflight[..1], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (404, "*"));
}

#[tokio::test]
async fn browsers_of_other_origins_may_not_call_the_api() {
    let only = || HttpSettings { origins: "https://a.example".parse().unwrap(), ..HttpSettings::default() };
    for (origin, expected) in [("https://a.example", "https://a.example"), ("https://b.example", "")] {
        let answer = ask_with(only(), request("GET", "/api/sessions/x", &[("origin", origin)], "")).await;
        assert_eq!(answer.header("access-control-allow-origin"), expected);
    }
}

#[tokio::test]
async fn the_list_requires_the_token() {
    let admin =
        || HttpSettings { listing: Listing::Admin("0123456789abcdef".parse().unwrap()), ..HttpSettings::default() };
    let answer = ask_with(admin(), request("GET", "/api/sessions", &[], "")).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "unauthorized"));
    assert!(answer.header("www-authenticate").starts_with("Bearer"));
    let token = [("authorization", "Bearer 0123456789abcdef")];
    // The relay in these tests has no list to return.
    assert_ne!(ask_with(admin(), request("GET", "/api/sessions", &token, "")).await.status, 401);
}

#[tokio::test]
async fn a_browser_gets_a_page_unless_it_is_switched_off() {
    let answer = ask("GET", "/?session=x", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "text/html; charset=utf-8"));
    assert_eq!(answer.header("content-security-policy"), "frame-ancestors 'none'");
    assert!(answer.text.contains("http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'"));
    assert!(!answer.text.contains("?session=x"));
    let head = ask("HEAD", "/", &[], "").await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    let off = HttpSettings { demo_page: false, ..HttpSettings::default() };
    assert_eq!(ask_with(off, request("GET", "/", &[], "")).await.code(), "upgrade_required");
}

#[tokio::test]
async fn a_broken_handshake_gets_the_supported_version() {
    let headers = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "8")];
    let answer = ask("GET", "/ws", &headers, "").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "bad_upgrade"));
    assert_eq!(answer.header("sec-websocket-version"), "13");
}

#[tokio::test]
async fn a_node_that_does_not_serve_yet_is_healthy_but_not_ready() {
    assert_eq!(ask("GET", "/healthz", &[], "").await.text, r#"{"status":"ok"}"#);
    let answer = ask("GET", "/readyz", &[], "").await;
    let body: Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!((answer.status.as_u16(), body["status"].as_str()), (503, Some("not_ready")));
    assert!(body["reason"].is_string());
    let answer = ask("POST", "/api/sessions", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "store_unavailable"));
    assert!(ask("GET", "/metrics", &[], "").await.text.contains("gitorial_relay_connections 0"));
}

#[tokio::test]
async fn ops_endpoints_can_have_their_own_port() {
    let moved = HttpSettings { serve_ops: false, ..HttpSettings::default() };
    assert_eq!(ask_with(moved, request("GET", "/metrics", &[], "")).await.status, 404);
    let response = ops_router(relay()).oneshot(request("GET", "/metrics", &[], "")).await.unwrap();
    assert_eq!(response.status(), 200);
}

/// A proxy that keeps the prefix, one that strips it, and an operator who asks the node itself.
#[tokio::test]
async fn the_api_and_sockets_are_under_the_path_prefix_too() {
    let under = |ws_paths: &[&str]| HttpSettings {
        path_prefix: "/relay".to_owned(),
        ws_paths: ws_paths.iter().map(|path| (*path).to_owned()).collect(),
        ..HttpSettings::default()
    };
    // A path that names the prefix itself was the way to get sockets there before.
    let settings = || under(&["/", "/ws", "/relay/ws", "/live"]);
    for (prefix, other) in [("/relay", "/relay/relay"), ("", "/else")] {
        let (relay, _inbox) = with_inbox();
        relay.on_tick().await;
        let answer = ask_of(relay, settings(), request("POST", &format!("{prefix}/api/sessions"), &[], "")).await;
        let data: Value = serde_json::from_str(&answer.text).unwrap();
        assert_eq!(answer.status, 201);
        assert_eq!(answer.header("location"), format!("{prefix}/api/sessions/{}", data["id"].as_str().unwrap()));
        for path in ["/ws", "/live"] {
            let answer = ask_with(settings(), request("GET", &format!("{prefix}{path}"), &[], "")).await;
            assert_eq!(answer.code(), "upgrade_required", "{prefix}{path}");
        }
        let page = ask_with(settings(), request("GET", &format!("{prefix}/"), &[], "")).await;
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8", "{prefix}/");
        let nowhere = ask_with(settings(), request("GET", &format!("{other}/api/sessions"), &[], "")).await;
        assert_eq!(nowhere.code(), "not_found");
    }
    assert_eq!(ask_with(settings(), request("GET", "/relay", &[], "")).await.status, 200);
    let hidden = ask_with(settings(), request("GET", "/relay/metrics", &[], "")).await;
    assert_eq!(hidden.code(), "not_found", "the ops endpoints are not for clients");
}
