//! The endpoints for operators: liveness, readiness and metrics.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use crate::relay::{Readiness, Relay};

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(flatten)]
    regions: Option<RegionCounts>,
}

/// Only on a Cluster, where regions fail apart from each other.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RegionCounts {
    regions: usize,
    regions_away: usize,
}

pub(super) fn routes(relay: Relay) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(relay)
}

/// Whether the process is alive. The handler never asks the store, because a restart repairs no Redis.
async fn healthz() -> impl IntoResponse {
    ([(CACHE_CONTROL, "no-store")], Json(Health { status: "ok", reason: None, regions: None }))
}

/// Whether the node accepts clients.
async fn readyz(State(relay): State<Relay>) -> impl IntoResponse {
    let readiness = relay.readiness();
    let (code, status) = match readiness {
        Readiness::Ready => (StatusCode::OK, "ready"),
        Readiness::Starting
        | Readiness::Draining
        | Readiness::StoreUnavailable
        | Readiness::StoreRefuses
        | Readiness::InboxSilent => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
    };
    let regions = match relay.regions() {
        (1, _) => None,
        (regions, regions_away) => Some(RegionCounts { regions, regions_away }),
    };
    (code, [(CACHE_CONTROL, "no-store")], Json(Health { status, reason: Some(relay.why()), regions }))
}

async fn metrics(State(relay): State<Relay>) -> impl IntoResponse {
    let headers = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    relay.measure();
    (headers, relay.metrics().render())
}
