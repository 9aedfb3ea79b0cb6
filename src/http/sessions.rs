//! `/api/sessions` (docs/protocol.md, "HTTP API").

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, OriginalUri, Path, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StringDeserializer};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{ApiError, App, Listing};
use crate::ids::SessionId;
use crate::protocol::SessionData;
use crate::relay::NewSession;
use crate::session::Strategy;

/// How many bytes a body may have besides the metadata.
const BODY_SLACK_BYTES: usize = 4096;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The deepest nesting of metadata: the same as for frames, since the same readers parse it.
const MAX_METADATA_DEPTH: usize = 128;

/// Session data is as private as a secret, so no cache may store it.
const NO_STORE: [(axum::http::HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/sessions", get(list).post(create))
        .route("/sessions/{id}", get(show).delete(remove))
        // `create` sets its own limit, from the settings.
        .layer(DefaultBodyLimit::disable())
}

async fn create(
    State(app): State<App>,
    OriginalUri(uri): OriginalUri,
    mut request: Request,
) -> Result<Response, ApiError> {
    let limit = app.settings.max_metadata_bytes + BODY_SLACK_BYTES;
    DefaultBodyLimit::max(limit).apply(&mut request);
    let body = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &()))
        .await
        .map_err(|_| ApiError::BodyIncomplete)?
        .map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::BodyTooBig,
            _ => ApiError::BodyIncomplete,
        })?;
    let new = read_new(&body, app.settings.max_metadata_bytes, app.settings.session_max_lifetime)?;
    let data = app.relay.create_session(new).await?;
    // With the prefix that the request had.
    let location = format!("{}/{}", uri.path(), data.id().reveal());
    Ok((StatusCode::CREATED, NO_STORE, [(LOCATION, location)], Json(data)).into_response())
}

async fn show(State(app): State<App>, id: Result<Path<String>, PathRejection>) -> Result<Response, ApiError> {
    let data = app.relay.session(session_id(id)?).await?.ok_or(ApiError::SessionNotFound)?;
    Ok((NO_STORE, Json(data)).into_response())
}

async fn remove(State(app): State<App>, id: Result<Path<String>, PathRejection>) -> Result<Response, ApiError> {
    if !app.relay.delete_session(session_id(id)?).await? {
        return Err(ApiError::SessionNotFound);
    }
    Ok((NO_STORE, Json(serde_json::json!({ "message": "Session deleted" }))).into_response())
}

/// Lists the sessions. If listing is off, the answer is 403 and not 404: the path exists (POST works), and "not found"
/// would seem to be about a session.
async fn list(State(app): State<App>, headers: HeaderMap) -> Result<Response, ApiError> {
    match &app.settings.listing {
        Listing::Off => return Err(ApiError::ListingOff),
        Listing::Admin(token) if !presents(&headers, token.reveal()) => return Err(ApiError::Unauthorized),
        Listing::Admin(_) | Listing::Public => {}
    }
    let sessions: Vec<SessionData> = app.relay.sessions().await?;
    Ok((NO_STORE, Json(sessions)).into_response())
}

/// Reads the id in the path. An id that this relay cannot have issued is treated as an unknown session.
fn session_id(id: Result<Path<String>, PathRejection>) -> Result<SessionId, ApiError> {
    let Path(text) = id.map_err(|_| ApiError::SessionNotFound)?;
    SessionId::parse(&text).ok_or(ApiError::SessionNotFound)
}

/// Whether the request carries `token` as its bearer token. The comparison uses all bytes of two hashes, so that its
/// duration reveals nothing about the token.
fn presents(headers: &HeaderMap, token: &str) -> bool {
    let header = headers.get(AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    let (scheme, presented) = header.split_at(header.len().min("Bearer ".len()));
    let presented = Sha256::digest(presented.trim_ascii());
    let difference = presented.iter().zip(Sha256::digest(token)).fold(0, |sum, (one, other)| sum | (one ^ other));
    scheme.eq_ignore_ascii_case(b"Bearer ") && difference == 0
}

/// The members of a request for a new session; other members are ignored.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Create<'a> {
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    expires_in: Option<&'a RawValue>,
    #[serde(borrow)]
    conflict_resolution: Option<&'a RawValue>,
}

/// Reads the body of a creation. `null` counts as absent, for every member: so no metadata is `null`.
fn read_new(body: &[u8], max_metadata_bytes: usize, max_lifetime: Duration) -> Result<NewSession, ApiError> {
    let body = body.trim_ascii();
    let create: Create<'_> = match body.first() {
        None => Create::default(),
        // serde would also accept an array, as the members in their order.
        Some(b'{') => serde_json::from_slice(body).map_err(|_| ApiError::InvalidJson)?,
        Some(_) => return Err(ApiError::InvalidJson),
    };
    if let Some(metadata) = create.metadata {
        if metadata.get().len() > max_metadata_bytes {
            return Err(ApiError::MetadataTooBig);
        }
        if depth(metadata.get()) > MAX_METADATA_DEPTH {
            return Err(ApiError::MetadataTooDeep);
        }
    }
    Ok(NewSession {
        metadata: create.metadata.map(|metadata| Arc::from(metadata.to_owned())),
        expires_in: create.expires_in.map(|text| expires_in(text.get(), max_lifetime)).transpose()?,
        strategy: create.conflict_resolution.map(|text| read_strategy(text.get())).transpose()?,
    })
}

/// Parses milliseconds: fractions are rounded up, and the result is at most `max_lifetime`.
fn expires_in(text: &str, max_lifetime: Duration) -> Result<Duration, ApiError> {
    let millis: f64 = serde_json::from_str(text).map_err(|_| ApiError::InvalidExpiresIn)?;
    if millis <= 0.0 {
        return Err(ApiError::InvalidExpiresIn);
    }
    // The limit comes before the conversion, so that no number of a caller can overflow.
    Ok(Duration::from_secs_f64(millis.ceil().min(max_lifetime.as_secs_f64() * 1000.0) / 1000.0))
}

fn read_strategy(text: &str) -> Result<Strategy, ApiError> {
    let name: String = serde_json::from_str(text).map_err(|_| ApiError::InvalidConflictResolution)?;
    let name: StringDeserializer<ValueError> = name.into_deserializer();
    Strategy::deserialize(name).map_err(|_| ApiError::InvalidConflictResolution)
}

/// How deep objects and arrays nest in `json`, which is valid.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match (in_text, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_text = !in_text,
            (false, b'{' | b'[') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn read(body: &str) -> Result<NewSession, ApiError> {
        read_new(body.as_bytes(), 1000, HOUR)
    }

    #[test]
    fn no_member_is_required() {
        for body in ["", "  \r\n", "{}", r#"{"metadata":null,"expiresIn":null,"conflictResolution":null,"other":[1]}"#]
        {
            let new = read(body).unwrap();
            assert!(new.metadata.is_none() && new.expires_in.is_none() && new.strategy.is_none(), "{body}");
        }
    }

    #[test]
    fn metadata_is_kept_byte_for_byte() {
        let new = read(r#"{"metadata": {"b":1.00, "a" : "é\u00e9", "b":2} }"#).unwrap();
        assert_eq!(new.metadata.unwrap().get(), r#"{"b":1.00, "a" : "é\u00e9", "b":2}"#);
    }

    #[test]
    fn a_body_that_is_not_an_object_is_refused() {
        for body in ["[]", "[null,5]", "null", "1", "{", r#"{"metadata":}"#, "{\"metadata\":\"\u{1}\"}", "{} {}"] {
            assert_eq!(read(body).err(), Some(ApiError::InvalidJson), "{body}");
        }
        assert_eq!(read_new(b"{\"metadata\":\"\xff\"}", 1000, HOUR).err(), Some(ApiError::InvalidJson));
    }

    #[test]
    fn expires_in_is_milliseconds_above_zero_cut_to_the_limit() {
        let millis = |text: &str| read(&format!(r#"{{"expiresIn":{text}}}"#)).map(|new| new.expires_in.unwrap());
        assert_eq!(millis("60000"), Ok(Duration::from_secs(60)));
        assert_eq!(millis("6e4"), Ok(Duration::from_secs(60)));
        assert_eq!(millis("0.5"), Ok(Duration::from_millis(1)));
        assert_eq!(millis("1e300"), Ok(HOUR));
        assert_eq!(millis("86400000"), Ok(HOUR));
        for wrong in ["0", "-1", "\"60000\"", "true", "[1]"] {
            assert_eq!(millis(wrong), Err(ApiError::InvalidExpiresIn), "{wrong}");
        }
    }

    #[test]
    fn only_the_two_spellings_of_a_strategy_are_accepted() {
        use crate::session::Strategy;
        let named = |text: &str| read(&format!(r#"{{"conflictResolution":{text}}}"#)).map(|new| new.strategy);
        assert_eq!(named("\"user_choice\""), Ok(Some(Strategy::UserChoice)));
        assert_eq!(named("\"DENY_BOTH\""), Ok(Some(Strategy::DenyBoth)));
        for wrong in ["\"Deny_Both\"", "\"\"", "1", r#"{"user_choice":null}"#] {
            assert_eq!(named(wrong), Err(ApiError::InvalidConflictResolution), "{wrong}");
        }
    }

    #[test]
    fn deep_and_big_metadata_is_refused_without_harm() {
        let deep = |levels: usize| format!(r#"{{"metadata":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(read(&deep(128)).is_ok());
        assert_eq!(read(&deep(129)).err(), Some(ApiError::MetadataTooDeep));
        assert_eq!(read(&deep(501)).err(), Some(ApiError::MetadataTooBig));
        let unknown = format!(r#"{{"x":{}{}}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(read(&unknown).is_ok());
        assert_eq!(depth(r#"{"a[[[":"\"{{{"}"#), 1);
    }

    #[test]
    fn only_the_whole_token_opens_the_list() {
        let with = |value: &str| presents(&HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]), "s3cret");
        assert!(with("Bearer s3cret") && with("bearer  s3cret"));
        assert!(
            !with("Bearer s3cre") && !with("Bearer s3crets") && !with("Basic s3cret") && !with("s3cret") && !with("")
        );
        assert!(!presents(&HeaderMap::new(), "s3cret"));
    }
}
