//! One HTTP request to a node, and its response.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Secret;
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

/// How long a connection to a node may take, and then its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest answer: a list of a thousand sessions, each with metadata of the default largest size.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// The reason why there is no answer. It names the address, and never the request.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The connection failed.
    #[error("{address} cannot be reached: {why}")]
    Unreachable {
        /// The address.
        address: String,
        /// The reason, in a few words.
        why: String,
    },
    /// The answer takes too long.
    #[error("{address} does not answer within {} s", PATIENCE.as_secs())]
    Slow {
        /// The address.
        address: String,
    },
    /// The answer is not a valid HTTP response.
    #[error("{address} did not send a valid HTTP response")]
    Strange {
        /// The address.
        address: String,
    },
}

/// A byte stream, with or without TLS.
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

/// Builds a connector that trusts the certificates that this machine trusts.
fn tls() -> Result<TlsConnector, tokio_rustls::rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A request to a node.
#[derive(Debug, Default)]
pub(super) struct Question<'a> {
    /// The method; `GET` by default.
    pub(super) method: Method,
    /// The path, from the slash on.
    pub(super) path: &'a str,
    /// The bearer token.
    pub(super) token: Option<&'a Secret>,
    /// The body: JSON.
    pub(super) body: Option<String>,
}

/// Sends the request, and waits for the whole answer.
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
