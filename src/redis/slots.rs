//! What the servers of a Cluster say about where the slots are.

use std::collections::BTreeSet;

use fred::error::Error;
use fred::types::Value;

/// The host and the port of a server.
pub(super) type Address = (String, u16);

/// Where else a command has to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// The slot has moved.
    Moved(Address),
    /// The slot is moving, and this key is there already.
    Ask(Address),
    /// The slot is moving, and its keys are on both servers.
    Later,
}

impl Redirect {
    /// What this answer of the server at `from` says; `None` for another error.
    pub(super) fn of(error: &Error, from: &Address) -> Option<Self> {
        let mut words = error.details().split(' ');
        let (code, to) = (words.next()?, words.nth(1));
        match code {
            "MOVED" => Some(Self::Moved(address(to?, from)?)),
            "ASK" => Some(Self::Ask(address(to?, from)?)),
            "TRYAGAIN" => Some(Self::Later),
            _ => None,
        }
    }
}

/// Parses `host:port`. A server that names no host means its own.
fn address(text: &str, from: &Address) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let host = if matches!(host, "" | "?") { from.0.as_str() } else { host };
    Some((host.to_owned(), port.parse().ok()?))
}

/// What one server says about the slots.
#[derive(Debug, Default)]
pub(super) struct View {
    primaries: Vec<(u16, u16, Address)>,
    /// Replicas among them.
    pub(super) servers: BTreeSet<Address>,
}

impl View {
    /// Parses an answer to CLUSTER SLOTS of the server at `from`: `[first, last, [host, port, ..], ..]` for each range.
    pub(super) fn of(slots: Value, from: &Address) -> Self {
        let mut view = Self::default();
        for range in slots.into_array() {
            let range = range.into_array();
            let number = |index: usize| range.get(index).and_then(|value: &Value| u16::try_from(value.as_u64()?).ok());
            let (Some(first), Some(last)) = (number(0), number(1)) else { continue };
            let server = |value: &Value| {
                let parts = value.clone().into_array();
                let host = parts.first()?.as_string().filter(|host| !host.is_empty() && host != "?");
                Some((host.unwrap_or_else(|| from.0.clone()), u16::try_from(parts.get(1)?.as_u64()?).ok()?))
            };
            let servers: Vec<Address> = range.iter().skip(2).filter_map(server).collect();
            view.primaries.extend(servers.first().map(|primary| (first, last, primary.clone())));
            view.servers.extend(servers);
        }
        view
    }

    /// The primary that has this slot.
    pub(super) fn owner(&self, slot: u16) -> Option<&Address> {
        let has = |(first, last, _): &&(u16, u16, Address)| (*first..=*last).contains(&slot);
        self.primaries.iter().find(has).map(|(_, _, address)| address)
    }
}

#[cfg(test)]
mod tests {
    use fred::error::ErrorKind;

    use super::*;

    fn from() -> Address {
        ("10.0.0.1".to_owned(), 7000)
    }

    #[test]
    fn a_server_says_where_else_a_command_has_to_be_sent() {
        let redirect = |words: &'static str| Redirect::of(&Error::new(ErrorKind::Cluster, words), &from());
        assert_eq!(redirect("MOVED 512 10.0.0.2:7001"), Some(Redirect::Moved(("10.0.0.2".to_owned(), 7001))));
        assert_eq!(redirect("MOVED 512 :7001"), Some(Redirect::Moved(("10.0.0.1".to_owned(), 7001))));
        assert_eq!(redirect("ASK 512 ::1:7001"), Some(Redirect::Ask(("::1".to_owned(), 7001))));
        assert_eq!(redirect("TRYAGAIN Multiple keys request during rehashing of slot"), Some(Redirect::Later));
        assert_eq!(redirect("ERR unknown"), None);
        assert_eq!(redirect("MOVED 512 nowhere"), None);
    }

    #[test]
    fn the_slots_of_a_server_name_its_primaries_and_replicas() {
        let server = |host: Value, port: i64| Value::Array(vec![host, port.into(), "id".into()]);
        let one = vec![0.into(), 5460.into(), server("10.0.0.2".into(), 7001), server("10.0.0.3".into(), 7002)];
        let other = vec![5461.into(), 16383.into(), server(Value::Null, 7000)];
        let view = View::of(Value::Array(vec![Value::Array(one), Value::Array(other)]), &from());
        assert_eq!(view.owner(512), Some(&("10.0.0.2".to_owned(), 7001)));
        assert_eq!(view.owner(9_000), Some(&from()));
        assert_eq!(view.servers.len(), 3);
        assert_eq!(View::of(Value::Null, &from()).owner(0), None);
    }
}
