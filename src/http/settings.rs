//! The settings of the HTTP side. An error of a parser continues a sentence that begins with the text itself: `"abc" is
//! not …`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The shortest admin token: a shorter one can be guessed.
const MIN_TOKEN_BYTES: usize = 16;

/// The callers that may list all sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// No caller.
    Off,
    /// Callers with this token.
    Admin(Secret),
    /// All callers.
    Public,
}

/// The settings of the HTTP side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// The callers that may list all sessions.
    pub listing: Listing,
    /// The web origins that may use the API and WebSockets.
    pub origins: Origins,
    /// The paths that accept WebSockets, without duplicates.
    pub ws_paths: Vec<String>,
    /// The path prefix under which the API and these paths answer too, as in `/relay`, because a proxy keeps it; empty
    /// for none.
    pub path_prefix: String,
    /// The largest frame that a client may send, in bytes.
    pub max_frame_bytes: usize,
    /// The largest metadata of a session, in bytes.
    pub max_metadata_bytes: usize,
    /// The longest `expiresIn`; a longer one is cut to it.
    pub session_max_lifetime: Duration,
    /// Whether a plain `GET /` shows the demo page.
    pub demo_page: bool,
    /// Whether this router also serves /healthz, /readyz and /metrics.
    pub serve_ops: bool,
}

impl HttpSettings {
    /// The path prefix without a slash at its end.
    pub(super) fn prefix(&self) -> &str {
        self.path_prefix.trim_end_matches('/')
    }
}

impl Default for HttpSettings {
    /// The defaults of the program.
    fn default() -> Self {
        Self {
            listing: Listing::Off,
            origins: Origins::Any,
            ws_paths: vec!["/".to_owned(), "/ws".to_owned()],
            path_prefix: String::new(),
            max_frame_bytes: 256 * 1024,
            max_metadata_bytes: 16 * 1024,
            session_max_lifetime: Duration::from_secs(12 * 60 * 60),
            demo_page: true,
            serve_ops: true,
        }
    }
}

/// A text that must not appear in logs: its `Debug` form is two dots.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for comparisons.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() < MIN_TOKEN_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("must be {MIN_TOKEN_BYTES} or more printable ASCII characters without spaces"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The web origins that may use the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Every origin.
    Any,
    /// These origins, in lower case, as browsers write them.
    List(Vec<String>),
}

impl Origins {
    /// Whether pages of `origin` may use the relay.
    #[must_use]
    pub fn allow(&self, origin: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::List(list) => list.iter().any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(origin)),
        }
    }
}

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let items: Vec<&str> = text.split(',').map(str::trim).collect();
        if items == ["*"] {
            return Ok(Self::Any);
        }
        let is_origin = |item: &&str| {
            let Some((scheme, host)) = item.split_once("://") else { return false };
            let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'?' | b'#' | b'*' | b'@');
            !scheme.is_empty() && !host.is_empty() && item.len() == item.trim().len() && host.bytes().all(plain)
        };
        match items.iter().find(|item| !is_origin(item)) {
            Some(item) => Err(format!(
                "has {item:?}, which is not an origin like https://example.org (no path, no final slash; * stands alone)"
            )),
            None => Ok(Self::List(items.iter().map(|item| item.to_ascii_lowercase()).collect())),
        }
    }
}
