//! Lua scripts that Redis keeps.

use fred::types::Value;

use super::{Call, Failure, Servers};
use crate::region::Region;

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

    /// Runs the script over a key of a region. The attempt is counted under `name`.
    pub(crate) async fn run(
        &self,
        servers: &Servers,
        region: Region,
        name: &'static str,
        key: String,
        args: Vec<Value>,
    ) -> Result<Value, Failure> {
        let call = |command, script: &str, args: Vec<Value>| {
            Call::new(command, [script.into(), 1.into(), key.as_str().into()].into_iter().chain(args))
        };
        let mut answers = match servers.ask(region, name, vec![call("EVALSHA", &self.name, args.clone())]).await {
            // EVAL also makes the server keep the script.
            Err(Failure::Refused(words)) if words.starts_with("NOSCRIPT") => {
                servers.ask(region, name, vec![call("EVAL", self.text, args)]).await?
            }
            answers => answers?,
        };
        Ok(answers.pop().unwrap_or(Value::Null))
    }
}
