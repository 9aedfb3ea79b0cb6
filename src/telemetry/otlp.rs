//! Spans of decisions, sent to an OpenTelemetry collector beside the node: OTLP over HTTP, in batches, from a bounded
//! queue. If the collector is unreachable, spans are lost and nothing else happens.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use crate::config::OtlpEndpoint;
use gitorial_relay::relay::SPANS;

/// How long one batch may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest part of a collector's answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The exporter. It sends the queued spans when it is dropped.
#[derive(Debug)]
pub(super) struct Spans(SdkTracerProvider);

impl Drop for Spans {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(PATIENCE) {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }
}

/// Builds the layer that records spans, and the exporter that sends them.
pub(super) fn layer<S>(
    collector: &OtlpEndpoint,
    node: &str,
    runtime: &Handle,
) -> Result<(impl Layer<S> + use<S>, Spans), ExporterBuildError>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let client =
        Client { runtime: runtime.clone(), authority: collector.authority().to_owned(), away: AtomicBool::new(false) };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(collector.traces())
        .with_timeout(PATIENCE)
        .build()?;
    let resource = Resource::builder()
        .with_service_name("gitorial-relay")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", node.to_owned()))
        .build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let tracer = provider.tracer("gitorial-relay");
    let decisions = Targets::new().with_target(SPANS, LevelFilter::DEBUG);
    Ok((tracing_opentelemetry::layer().with_tracer(tracer).with_filter(decisions), Spans(provider)))
}

/// Sends batches. The library calls from a thread of its own, so a task of the node sends each batch.
#[derive(Debug)]
struct Client {
    runtime: Handle,
    authority: String,
    away: AtomicBool,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sending = send(self.authority.clone(), request);
        let sent = self.runtime.spawn(async { timeout(PATIENCE, sending).await });
        let answer = match sent.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("the collector does not answer".into()),
            Err(_) => Err("the node is ending".into()),
        };
        let away = !answer.as_ref().is_ok_and(|answer| answer.status().is_success());
        if self.away.swap(away, Ordering::Relaxed) != away {
            match away {
                true => tracing::warn!("the collector does not accept spans; they are lost until it does"),
                false => tracing::info!("the collector accepts spans again"),
            }
        }
        answer
    }
}

async fn send(authority: String, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let stream = TcpStream::connect(&authority).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driven = tokio::spawn(connection);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).parse()?;
    *request.uri_mut() = path;
    request.headers_mut().insert(HOST, authority.parse()?);
    let (parts, body) = sender.send_request(request.map(Full::new)).await?.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
    driven.abort();
    Ok(Response::from_parts(parts, body))
}
