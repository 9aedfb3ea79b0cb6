//! Whether Redis evicts keys, in its own words.

use fred::interfaces::ClientLike;
use fred::types::CustomCommand;

use super::Connection;

/// The reason why a Redis must not be used as a store.
#[derive(Debug, thiserror::Error)]
#[error("redis evicts keys when it is full (maxmemory-policy {policy}): sessions would vanish; set it to noeviction")]
pub struct Evicts {
    /// The policy that was found.
    pub policy: String,
}

/// Checks whether this Redis evicts keys when it is full. A Redis that does not tell is let through. INFO tells it, and
/// a node needs INFO anyway; CONFIG GET would tell the node's user passwords too.
pub(crate) async fn check_eviction(connection: &Connection) -> Result<(), Evicts> {
    let command = CustomCommand::new_static("INFO", None, false);
    let client = connection.client();
    let said = connection.ask::<String>("info", client.custom(command, vec!["memory"])).await;
    let said = said.map_err(|error| connection.failure(&error).to_string());
    match said.and_then(|info| info_line(&info, "maxmemory_policy").ok_or_else(|| "INFO lacks it".to_owned())) {
        Ok(policy) if policy != "noeviction" => Err(Evicts { policy }),
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!(error, "redis does not report its maxmemory-policy; it should be noeviction");
            Ok(())
        }
    }
}

/// The value of this line in an answer to INFO.
pub(super) fn info_line(info: &str, name: &str) -> Option<String> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned());
    info.lines().find_map(value)
}
