//! One question to a node, and its answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use gitorial_relay::config::Secret;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};

use super::address::Address;

/// How long a node may take to be reached, and again to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest answer: a list of a thousand sessions, each with the largest usual metadata.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// Why there is no answer. Says where, and never what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// Nobody is there.
    #[error("{address} cannot be reached: {why}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why, in few words.
        why: String,
    },
    /// It takes too long.
    #[error("{address} does not answer within {} s", PATIENCE.as_secs())]
    Slow {
        /// Who.
        address: String,
    },
    /// What came is no answer.
    #[error("{address} does not answer as a relay does")]
    Strange {
        /// Who.
        address: String,
    },
}

/// What bytes go over: with TLS or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens a connection.
pub(super) async fn connect(address: &Address) -> Result<Box<dyn Stream>, CallError> {
    let unreachable =
        |error: io::Error| CallError::Unreachable { address: address.to_string(), why: error.to_string() };
    let opened = async {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        if !address.tls {
            return Ok(Box::new(stream) as Box<dyn Stream>);
        }
        let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(tls().map_err(io::Error::other)?.connect(name, stream).await?) as Box<dyn Stream>)
    };
    match timeout(PATIENCE, opened).await {
        Ok(opened) => opened.map_err(unreachable),
        Err(_) => Err(CallError::Slow { address: address.to_string() }),
    }
}

/// Trusts whom this machine trusts.
fn tls() -> Result<TlsConnector, tokio_rustls::rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What is asked of a node.
#[derive(Debug, Default)]
pub(super) struct Question<'a> {
    /// How; `GET` as a rule.
    pub(super) method: Method,
    /// What, from the slash on.
    pub(super) path: &'a str,
    /// Who asks.
    pub(super) token: Option<&'a Secret>,
    /// What goes with it: JSON.
    pub(super) body: Option<String>,
}

/// Asks, and waits for the whole answer.
pub(super) async fn ask(address: &Address, question: Question<'_>) -> Result<(StatusCode, Bytes), CallError> {
    let strange = || CallError::Strange { address: address.to_string() };
    let stream = connect(address).await?;
    let mut request = Request::builder().method(question.method).uri(address.path(question.path));
    request = request.header(HOST, address.authority());
    if let Some(token) = question.token {
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
    }
    if question.body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let body = Full::new(Bytes::from(question.body.unwrap_or_default()));
    let request = request.body(body).map_err(|_| strange())?;
    let answered = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let driven = tokio::spawn(connection);
        let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
        let bytes = Limited::new(body, MAX_ANSWER_BYTES).collect().await.ok()?.to_bytes();
        driven.abort();
        Some((parts.status, bytes))
    };
    match timeout(PATIENCE, answered).await {
        Ok(answer) => answer.ok_or_else(strange),
        Err(_) => Err(CallError::Slow { address: address.to_string() }),
    }
}
