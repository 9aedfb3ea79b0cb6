//! `healthcheck`: asks whether a node is alive or ready.

use serde::Deserialize;

use super::address::{Address, Port};
use super::call::{Question, ask};
use super::{ToolError, plain, print};

/// The arguments of `healthcheck`.
#[derive(clap::Args)]
pub(super) struct Healthcheck {
    /// The address of the node; by default the one in this machine's settings.
    #[arg(long, value_name = "URL")]
    url: Option<Address>,

    /// Ask whether the node is ready, not only whether it is alive.
    #[arg(long)]
    ready: bool,
}

/// A node's answer.
#[derive(Deserialize)]
struct Health {
    status: String,
    reason: Option<String>,
}

impl Healthcheck {
    pub(super) async fn run(self, env: &dyn Fn(&str) -> Option<String>) -> Result<(), ToolError> {
        let address = Address::resolve(self.url, Port::Ops, env)?;
        let path = if self.ready { "/readyz" } else { "/healthz" };
        let (status, body) = ask(&address, Question { path, ..Question::default() }).await?;
        let says = match serde_json::from_slice(&body) {
            Ok(Health { status, reason: Some(reason) }) => format!("{status} ({reason})"),
            Ok(Health { status, reason: None }) => status,
            Err(_) => status.to_string(),
        };
        if !status.is_success() {
            return Err(ToolError::Refused(format!("{address}{path} says {}", plain(&says))));
        }
        print(&format!("{address}{path} says {}", plain(&says)));
        Ok(())
    }
}
