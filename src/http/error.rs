//! The errors of the HTTP side: always `{"error": "<sentence>", "code": "<machine_code>"}`.

use std::borrow::Cow;

use axum::Json;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::relay::RelayError;

/// Every error that the HTTP side returns. The codes are stable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// The session does not exist, or has ended.
    SessionNotFound,
    /// The path does not exist.
    NotFound,
    /// The path does not accept this method.
    MethodNotAllowed,
    /// The body is not one JSON object.
    InvalidJson,
    /// `expiresIn` is not a duration.
    InvalidExpiresIn,
    /// `conflictResolution` does not name a strategy.
    InvalidConflictResolution,
    /// The body is over the limit.
    BodyTooBig,
    /// `metadata` is over the limit.
    MetadataTooBig,
    /// `metadata` nests deeper than common readers can follow.
    MetadataTooDeep,
    /// The body did not arrive in time, or was cut off.
    BodyIncomplete,
    /// The operator has not enabled the list of sessions.
    ListingOff,
    /// The list needs the admin token.
    Unauthorized,
    /// This path is for WebSockets.
    UpgradeRequired,
    /// The request asks for a WebSocket, but violates RFC 6455.
    BadUpgrade,
    /// The relay cannot use its store.
    StoreUnavailable,
    /// The store refuses, or the node is not ready, for this reason.
    NotReady(String),
    /// The store is full.
    TooManySessions,
    /// An internal error of the relay.
    Internal,
}

#[derive(Serialize)]
struct Body {
    error: Cow<'static, str>,
    code: &'static str,
}

impl ApiError {
    /// Status, machine code and sentence.
    fn parts(&self) -> (StatusCode, &'static str, Cow<'static, str>) {
        use StatusCode as S;
        let (status, code, sentence) = match self {
            Self::NotReady(why) => {
                let sentence = format!("The relay cannot do this now: {why}.");
                return (S::SERVICE_UNAVAILABLE, "store_unavailable", sentence.into());
            }
            Self::SessionNotFound => (S::NOT_FOUND, "session_not_found", "Session not found"),
            Self::NotFound => (S::NOT_FOUND, "not_found", "There is nothing at this path."),
            Self::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "method_not_allowed", "This path does not take this method; see Allow.")
            }
            Self::InvalidJson => (S::BAD_REQUEST, "invalid_json", "The body must be one JSON object, or empty."),
            Self::InvalidExpiresIn => {
                (S::BAD_REQUEST, "invalid_expires_in", "expiresIn must be a number of milliseconds above zero.")
            }
            Self::InvalidConflictResolution => (
                S::BAD_REQUEST,
                "invalid_conflict_resolution",
                "conflictResolution must be first_come_first_served, user_choice or deny_both.",
            ),
            Self::BodyTooBig => (S::PAYLOAD_TOO_LARGE, "body_too_big", "The body is larger than this relay accepts."),
            Self::MetadataTooBig => {
                (S::PAYLOAD_TOO_LARGE, "metadata_too_big", "The metadata is larger than this relay accepts.")
            }
            Self::MetadataTooDeep => {
                (S::BAD_REQUEST, "metadata_too_deep", "The metadata nests deeper than 128 levels.")
            }
            Self::BodyIncomplete => {
                (S::REQUEST_TIMEOUT, "body_incomplete", "The body did not arrive whole and in time.")
            }
            Self::ListingOff => (S::FORBIDDEN, "listing_off", "Listing sessions is switched off on this relay."),
            Self::Unauthorized => {
                (S::UNAUTHORIZED, "unauthorized", "Listing sessions needs the admin token as a bearer token.")
            }
            Self::UpgradeRequired => {
                (S::UPGRADE_REQUIRED, "upgrade_required", "This path is for WebSockets; open it as one.")
            }
            Self::BadUpgrade => (S::BAD_REQUEST, "bad_upgrade", "This is not a WebSocket handshake of version 13."),
            Self::StoreUnavailable => {
                (S::SERVICE_UNAVAILABLE, "store_unavailable", "The relay cannot use its store now; try again later.")
            }
            Self::TooManySessions => (
                S::SERVICE_UNAVAILABLE,
                "too_many_sessions",
                "The relay has room for no more sessions; try again later.",
            ),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "The relay failed to answer this."),
        };
        (status, code, sentence.into())
    }

    /// The headers that tell a client how to react.
    const fn headers(&self) -> &'static [(&'static str, &'static str)] {
        const RETRY: &[(&str, &str)] = &[("retry-after", "2")];
        const TOKEN: &[(&str, &str)] = &[("www-authenticate", "Bearer realm=\"gitorial-relay\"")];
        const VERSION: &[(&str, &str)] = &[("sec-websocket-version", "13")];
        const SOCKET: &[(&str, &str)] = &[("upgrade", "websocket"), ("connection", "upgrade"), VERSION[0]];
        match self {
            Self::StoreUnavailable | Self::NotReady(_) | Self::TooManySessions => RETRY,
            Self::Unauthorized => TOKEN,
            Self::UpgradeRequired => SOCKET,
            Self::BadUpgrade => VERSION,
            _ => &[],
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code, error) = self.parts();
        let mut response = (status, Json(Body { error, code })).into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in self.headers() {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        response
    }
}

impl From<RelayError> for ApiError {
    fn from(error: RelayError) -> Self {
        match error {
            RelayError::Unavailable => Self::StoreUnavailable,
            refused @ RelayError::Refused(_) => Self::NotReady(refused.to_string()),
            RelayError::NotReady(why) => Self::NotReady(why),
            RelayError::TooManySessions => Self::TooManySessions,
            RelayError::Internal => Self::Internal,
        }
    }
}
