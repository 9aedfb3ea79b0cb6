//! The WebSocket upgrade. Every upgrade is accepted, and a problem is reported by a close frame afterwards, because a
//! browser cannot read the status of a failed upgrade and some old clients crash on it (docs/protocol.md, "WebSocket").

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ORIGIN, UPGRADE};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};

use super::{ApiError, App};
use crate::connection::{self, UpgradeRequest};
use crate::ids::{ClientId, ResumeToken, SessionId};

/// The size of a socket's read buffer, allocated for as long as the socket is open; one read takes at most this. A
/// usual state fits. Below 1 KiB the buffer loses its size and grows back by a few bytes with each read.
const READ_BUFFER_BYTES: usize = 2 * 1024;

/// How many bytes are gathered before they are written without a flush. The buffer is allocated when it is first
/// needed.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;

/// The page for people who open the relay's address in a browser, built from sdk/demo. The page declares its own
/// content policy.
const DEMO_PAGE: &str = include_str!("demo.html");

/// The part of the policy that a page cannot declare itself.
const DEMO_POLICY: &str = "frame-ancestors 'none'";

/// `GET` on a path that accepts WebSockets.
pub(super) async fn open(
    State(app): State<App>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else { return plain(&app, &uri, &headers) };
    let origin_allowed = headers.get(ORIGIN).is_none_or(|origin| app.settings.origins.allow(origin.as_bytes()));
    let request = request(&uri, origin_allowed);
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(app.settings.max_frame_bytes)
        .max_frame_size(app.settings.max_frame_bytes)
        // The client is gone already, so nobody can be told.
        .on_failed_upgrade(|error| tracing::debug!(%error, "upgrade failed"))
        .on_upgrade(move |socket| connection::serve(socket, app.relay, request))
}

/// Answers a request that is not a handshake: from a browser, or from a client with an error.
fn plain(app: &App, uri: &Uri, headers: &HeaderMap) -> Response {
    let asks = headers.get_all(UPGRADE).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if asks {
        return ApiError::BadUpgrade.into_response();
    }
    let root = uri.path().strip_prefix(app.settings.prefix()).unwrap_or(uri.path());
    if !matches!(root, "" | "/") || !app.settings.demo_page {
        return ApiError::UpgradeRequired.into_response();
    }
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, DEMO_POLICY),
        (CACHE_CONTROL, "max-age=300"),
    ];
    (headers, DEMO_PAGE).into_response()
}

/// Reads the query leniently: the first of a repeated key counts, an empty value counts as absent, and an invalid id is
/// left for the connection to refuse. The query is never logged, because a session id is a secret.
fn request(uri: &Uri, origin_allowed: bool) -> UpgradeRequest {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).unwrap_or_default();
    let first = |key: &str| {
        let value = pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.trim());
        value.filter(|value| !value.is_empty())
    };
    let session = first("session");
    UpgradeRequest {
        session: session.and_then(SessionId::parse),
        session_given: session.is_some(),
        client: first("client").and_then(ClientId::parse),
        resume: first("resume").map(ResumeToken::presented),
        origin_allowed,
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::random::Random;

    fn asked(query: &str) -> UpgradeRequest {
        request(&format!("/ws?{query}").parse().unwrap(), true)
    }

    #[test]
    fn a_query_is_read_leniently() {
        let (one, other) = (SessionId::random(), SessionId::random());
        let request =
            asked(&format!("x&&session={}&session={}&client=a%20b%C3%A9&resume=t", one.reveal(), other.reveal()));
        assert_eq!(request.session, Some(one));
        assert_eq!(request.client, ClientId::parse("a bé"));
        assert_eq!(request.resume.unwrap().reveal(), "t");
        let escaped = one.reveal().replace('-', "%2D");
        assert_eq!(asked(&format!("session={escaped}")).session, Some(one));
    }

    #[test]
    fn a_wrong_session_differs_from_a_missing_one() {
        for none in ["", "session", "session=", "session=%20", "Session=x"] {
            assert!(!asked(none).session_given, "{none}");
        }
        for wrong in ["session=abc", "session=%FF%zz"] {
            let request = asked(wrong);
            assert!(request.session_given && request.session.is_none(), "{wrong}");
        }
    }

    #[test]
    fn an_invalid_client_id_counts_as_missing() {
        assert_eq!(asked("client=%00").client, None);
        assert_eq!(asked(&format!("client={}", "x".repeat(200))).client, None);
    }

    #[test]
    fn the_pages_policy_allows_its_own_script_and_style_only() {
        let policy = between(DEMO_PAGE, "Content-Security-Policy\" content=\"", "\"");
        for (kind, tag) in [("script", "script"), ("style", "style")] {
            let own = between(DEMO_PAGE, &format!("<{tag}>"), &format!("</{tag}>"));
            let hash = base64(&Sha256::digest(own));
            assert!(policy.contains(&format!("{kind}-src 'sha256-{hash}'; ")), "the hash of its {tag} is {hash}");
            assert_eq!(DEMO_PAGE.matches(&format!("<{tag}")).count(), 1);
        }
        assert!(policy.starts_with("default-src 'none'; ") && !DEMO_PAGE.contains("style=\""), "{policy}");
    }

    fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
        text.split_once(start).and_then(|(_, rest)| rest.split_once(end)).unwrap().0
    }

    fn base64(bytes: &[u8]) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let group = |chunk: &[u8]| {
            let bits = (0..3).fold(0_u32, |bits, i| (bits << 8) | u32::from(*chunk.get(i).unwrap_or(&0)));
            let letter = |i: usize| LETTERS[(bits >> (18 - 6 * i)) as usize & 63] as char;
            (0..4).map(|i| if i <= chunk.len() { letter(i) } else { '=' }).collect::<String>()
        };
        bytes.chunks(3).map(group).collect()
    }
}
