//! Lua scripts that Redis keeps.

use fred::types::Value;
use prometheus::Histogram;

use super::{Call, Failure, Servers};
use crate::region::Region;

/// How the answer of a server begins that does not have a script yet.
pub(super) const NO_SCRIPT: &str = "NOSCRIPT";

/// A script over one key. Its text is sent only to a server that does not have it yet.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    text: &'static str,
    name: String,
}

impl Script {
    pub(crate) fn new(text: &'static str) -> Self {
        Self { text, name: fred::util::sha1_hash(text) }
    }

    /// Runs the script over a key of a region. Each round trip is counted under `name`, and timed.
    pub(crate) async fn run(
        &self,
        servers: &Servers,
        region: Region,
        (name, seconds): (&'static str, &Histogram),
        key: String,
        args: Vec<Value>,
    ) -> Result<Value, Failure> {
        let ask = async |command, script: &str, args: Vec<Value>| {
            let words = [script.into(), 1.into(), key.as_str().into()].into_iter().chain(args);
            let _timer = seconds.start_timer();
            servers.ask(region, name, vec![Call::new(command, words)]).await
        };
        let mut answers = match ask("EVALSHA", &self.name, args.clone()).await {
            // EVAL also makes the server keep the script.
            Err(Failure::Refused(words)) if words.starts_with(NO_SCRIPT) => ask("EVAL", self.text, args).await?,
            answers => answers?,
        };
        Ok(answers.pop().unwrap_or(Value::Null))
    }
}
