//! Published ports.

use std::{
    fmt,
    net::{Ipv6Addr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// A transport protocol that ports can be published for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Transmission control protocol.
    Tcp,
    /// User datagram protocol.
    Udp,
    /// Stream control transmission protocol.
    Sctp,
}

/// One address and port of the host whose new connections go to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Publication {
    /// Protocol of both sides.
    pub protocol: Protocol,
    /// The host's side. The unspecified address stands for every address of the host of that family.
    pub host: SocketAddr,
    /// The container's side; the same address family as `host`.
    pub container: SocketAddr,
}

impl Protocol {
    /// The IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl FromStr for Protocol {
    type Err = String;

    /// Docker's own sentence is the error.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(format!("invalid proto: {text}")),
        }
    }
}

impl Publication {
    /// Whether every address of the host is meant.
    pub fn is_any(&self) -> bool {
        self.host.ip().is_unspecified()
    }

    /// Whether the kernel's address translation can serve it: both sides are of one family, and the host's is not
    /// IPv6 loopback, which never leaves the loopback interface. Clients on `::1` are left to a proxy by "any" too.
    pub fn is_translatable(&self) -> bool {
        self.host.is_ipv4() == self.container.is_ipv4() && self.host.ip() != Ipv6Addr::LOCALHOST
    }
}
