//! The address of a node.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::config::{self, Invocation};
use hyper::Uri;

use super::ToolError;

/// The address of a node, or of a proxy in front of several: `http://` or `https://`, a host, and optionally a port and
/// a path prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Whether requests go over TLS.
    pub(super) tls: bool,
    /// The host, without the brackets of an IPv6 address.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    authority: String,
    prefix: String,
}

/// One of a node's two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// The port for clients.
    Clients,
    /// The port for operators, if the node has one.
    Ops,
}

impl Address {
    /// Returns the given address; without one, the address of the node that this machine's settings (environment and
    /// settings file) describe.
    pub(super) fn resolve(
        given: Option<Self>,
        port: Port,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ToolError> {
        if let Some(given) = given {
            return Ok(given);
        }
        let Invocation::Serve(config) = config::read(["gitorial-relay".into()], env, |command| command)? else {
            return Err(ToolError::Use("give --url".to_owned()));
        };
        let ops = config.ops_listen.filter(|_| port == Port::Ops);
        Self::of_listener(ops.unwrap_or(config.listen))
    }

    fn of_listener(listen: SocketAddr) -> Result<Self, ToolError> {
        if listen.port() == 0 {
            return Err(ToolError::Use("the settings let the node pick its port; pass --url".to_owned()));
        }
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(ip, listen.port())).parse().map_err(ToolError::Use)
    }

    /// The value of the `Host` header.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns `path`, which begins with a slash, with the path prefix of this address.
    pub(super) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Returns the WebSocket address of `path`.
    pub(super) fn websocket(&self, path: &str) -> String {
        let scheme = if self.tls { "wss" } else { "ws" };
        format!("{scheme}://{}{}", self.authority, self.path(path))
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "is not a node address like http://127.0.0.1:8080 or https://relay.example.org".to_owned();
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(wrong()) };
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(wrong()),
        };
        if uri.query().is_some() || authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            tls,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.to_string(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_perhaps_a_port_and_a_path() {
        let address: Address = "https://relay.example.org/tutorials/".parse().unwrap();
        assert_eq!((address.tls, address.host.as_str(), address.port), (true, "relay.example.org", 443));
        assert_eq!(address.path("/healthz"), "/tutorials/healthz");
        assert_eq!(address.websocket("/ws"), "wss://relay.example.org/tutorials/ws");
        let address: Address = "http://[::1]:8080".parse().unwrap();
        assert_eq!(
            (address.host.as_str(), address.port, address.to_string().as_str()),
            ("::1", 8080, "http://[::1]:8080")
        );
        for wrong in ["", "127.0.0.1:8080", "ws://h", "http://", "http://u:p@h", "http://h/?session=x", "redis://h"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_default_address_is_the_node_of_the_local_settings() {
        let of = |port, variables: &[(&str, &str)]| {
            let variables: Vec<_> =
                variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let env =
                move |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            Address::resolve(None, port, &env).map(|address| address.to_string()).map_err(|error| error.to_string())
        };
        let both = [("RELAY_LISTEN", "0.0.0.0:8000"), ("RELAY_OPS_LISTEN", "[::]:9000")];
        assert_eq!(of(Port::Ops, &[]).unwrap(), "http://127.0.0.1:8080");
        assert_eq!(of(Port::Ops, &both).unwrap(), "http://[::1]:9000");
        assert_eq!(of(Port::Ops, &both[..1]).unwrap(), "http://127.0.0.1:8000");
        assert_eq!(of(Port::Clients, &both).unwrap(), "http://127.0.0.1:8000");
        assert!(of(Port::Clients, &[("RELAY_LISTEN", "127.0.0.1:0")]).unwrap_err().contains("pass --url"));
        assert!(of(Port::Clients, &[("RELAY_LISTEN", "here")]).unwrap_err().contains("RELAY_LISTEN"));
    }
}
