//! The HTTP side: the sessions API, the WebSocket upgrade, health and metrics. It translates and decides nothing.

mod error;
mod ops;
mod serve;
mod sessions;
mod settings;
mod upgrade;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderName, LOCATION, REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Method};
use axum::response::Response;
use axum::routing::get;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::relay::Relay;

pub use error::ApiError;
pub use serve::serve;
pub use settings::{HttpSettings, Listing, Origins, Secret};

/// How long a browser may cache the permission to call the API. No browser caches it for longer than a day.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// The state of every handler.
#[derive(Clone, Debug)]
struct App {
    relay: Relay,
    settings: Arc<HttpSettings>,
}

/// The router for clients. It includes the ops endpoints unless they have a port of their own.
pub fn router(relay: Relay, settings: HttpSettings) -> Router {
    let cors = cors(&settings.origins);
    let app = App { relay: relay.clone(), settings: Arc::new(settings) };
    // The inner fallback lets browsers read the errors of unknown API paths, too.
    let api = sessions::routes().fallback(not_found).method_not_allowed_fallback(method_not_allowed).layer(cors);
    let mut router = Router::new();
    let mut paths = BTreeSet::new();
    // Operators and proxies that strip the prefix ask without it.
    for prefix in BTreeSet::from(["", app.settings.prefix()]) {
        router = router.nest(&format!("{prefix}/api"), api.clone());
        paths.extend(app.settings.ws_paths.iter().map(|path| format!("{prefix}{path}")));
        if !prefix.is_empty() {
            // People leave out the slash at its end.
            paths.insert(prefix.to_owned());
        }
    }
    for path in paths {
        router = router.route(&path, get(upgrade::open));
    }
    let mut router = router.with_state(app.clone());
    if app.settings.serve_ops {
        router = router.merge(ops::routes(relay));
    }
    finish(router)
}

/// The router of the ops endpoints, for a port of their own.
pub fn ops_router(relay: Relay) -> Router {
    finish(ops::routes(relay))
}

fn finish(router: Router) -> Router {
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(axum::middleware::map_response(with_security_headers))
}

async fn not_found() -> ApiError {
    ApiError::NotFound
}

async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}

/// Session ids are part of addresses, so the headers keep addresses from other sites; they also forbid browsers to
/// guess content types.
async fn with_security_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn cors(origins: &Origins) -> CorsLayer {
    const EXPOSED: [HeaderName; 2] = [LOCATION, RETRY_AFTER];
    let origin = match origins {
        Origins::Any => AllowOrigin::any(),
        Origins::List(_) => {
            let origins = origins.clone();
            AllowOrigin::predicate(move |origin, _| origins.allow(origin.as_bytes()))
        }
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([CONTENT_TYPE, AUTHORIZATION])
        .expose_headers(EXPOSED)
        .max_age(PREFLIGHT_MAX_AGE)
}

#[cfg(test)]
mod tests;
