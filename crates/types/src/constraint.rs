//! Placement constraints: `key==value` or `key!=value` (swarm-semantics 4.3).

use std::net::IpAddr;

use crate::object::Node;

/// One constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    key: Key,
    equal: bool,
    value: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    NodeId,
    Hostname,
    Ip,
    Role,
    Os,
    Arch,
    NodeLabel(String),
    EngineLabel(String),
    /// Well-formed, but of nothing that a node has: never satisfied.
    Unknown,
}

/// Why a text is not a constraint. Docker's texts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// Neither `==` nor `!=`.
    #[error("constraint expected one operator from ==, !=")]
    Operator,
    /// A key with characters that no key has.
    #[error("key '{0}' is invalid")]
    Key(String),
    /// A value that is empty, or has characters that no value has.
    #[error("value '{0}' is invalid")]
    Value(String),
}

/// Reads all of `texts`.
///
/// # Errors
/// The first that is not a constraint.
pub fn parse(texts: &[String]) -> Result<Vec<Constraint>, ConstraintError> {
    texts.iter().map(|text| text.parse()).collect()
}

/// Whether `node` satisfies all of `constraints`.
pub fn matches(constraints: &[Constraint], node: &Node) -> bool {
    constraints.iter().all(|c| c.matches(node))
}

// === impl Constraint ===

impl std::str::FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        let split = |operator| text.split_once(operator);
        let (equal, (key, value)) = split("==")
            .map(|parts| (true, parts))
            .or_else(|| split("!=").map(|parts| (false, parts)))
            .ok_or(ConstraintError::Operator)?;
        let (key, value) = (key.trim(), value.trim());
        if !is_key(key) {
            return Err(ConstraintError::Key(key.into()));
        }
        if !is_value(value) {
            return Err(ConstraintError::Value(value.into()));
        }
        Ok(Self { key: Key::of(key), equal, value: value.into() })
    }
}

impl Constraint {
    /// Whether `node` satisfies it. Texts compare without regard to case; what a node does not have is empty.
    pub fn matches(&self, node: &Node) -> bool {
        let description = node.description.as_deref();
        let platform = description.map(|d| &d.platform);
        let has = match &self.key {
            Key::NodeId => node.id.as_str(),
            Key::Hostname => description.map_or("", |d| &d.hostname),
            Key::Role => node.role.as_str(),
            Key::Os => platform.map_or("", |p| &p.os),
            Key::Arch => platform.map_or("", |p| &p.architecture),
            Key::NodeLabel(key) => node.spec.labels.get(key).map_or("", String::as_str),
            Key::EngineLabel(key) => description.and_then(|d| d.engine.labels.get(key)).map_or("", String::as_str),
            Key::Ip => return self.matches_address(&node.status.addr),
            Key::Unknown => return false,
        };
        (has.to_lowercase() == self.value.to_lowercase()) == self.equal
    }

    fn matches_address(&self, addr: &str) -> bool {
        let addr: Option<IpAddr> = addr.parse().ok();
        let (network, prefix) = match self.value.split_once('/') {
            Some((network, prefix)) => (network, prefix.parse::<u32>().ok()),
            None => (&*self.value, Some(128)),
        };
        let (Ok(network), Some(prefix)) = (network.parse::<IpAddr>(), prefix) else { return false };
        let width = if network.is_ipv4() { 32 } else { 128 };
        if self.value.contains('/') && prefix > width {
            return false;
        }
        let within = addr.is_some_and(|addr| {
            let (addr, network) = (addr.to_canonical(), network.to_canonical());
            addr.is_ipv4() == network.is_ipv4() && leading(addr, prefix) == leading(network, prefix)
        });
        within == self.equal
    }
}

/// The first `bits` bits of an address.
fn leading(addr: IpAddr, bits: u32) -> u128 {
    match addr {
        IpAddr::V4(v4) => u128::from(v4.to_bits().checked_shr(32 - bits.min(32)).unwrap_or(0)),
        IpAddr::V6(v6) => v6.to_bits().checked_shr(128 - bits.min(128)).unwrap_or(0),
    }
}

impl Key {
    /// Names are read without regard to case, labels with.
    fn of(key: &str) -> Self {
        let lower = key.to_ascii_lowercase();
        match lower.as_str() {
            "node.id" => Self::NodeId,
            "node.hostname" => Self::Hostname,
            "node.ip" => Self::Ip,
            "node.role" => Self::Role,
            "node.platform.os" => Self::Os,
            "node.platform.arch" => Self::Arch,
            _ => {
                let label = |prefix: &str| {
                    lower.strip_prefix(prefix).filter(|l| !l.is_empty()).map(|_| key[prefix.len()..].to_owned())
                };
                (label("node.labels.").map(Self::NodeLabel))
                    .or_else(|| label("engine.labels.").map(Self::EngineLabel))
                    .unwrap_or(Self::Unknown)
            }
        }
    }
}

fn is_key(key: &str) -> bool {
    let first = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    first && key.len() > 1 && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn is_value(value: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || r":-_.*()?+[]\^$|/".contains(c);
    !value.is_empty() && value.chars().all(good)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::object::{EngineDescription, Meta, NodeDescription, NodeStatus, Platform};
    use crate::spec::{NodeRole, NodeSpec};

    fn node() -> Node {
        let labels = [("Zone".to_owned(), "A".to_owned())].into();
        let engine = EngineDescription { labels: [("disk".to_owned(), "ssd".to_owned())].into(), ..Default::default() };
        Node {
            id: "0123456789abcdefghijklmno".parse().unwrap(),
            meta: Meta::default(),
            spec: NodeSpec { labels, ..NodeSpec::default() },
            role: NodeRole::Manager,
            description: Some(Arc::new(NodeDescription {
                hostname: "Alpha".into(),
                platform: Platform { architecture: "x86_64".into(), os: "linux".into() },
                engine,
                ..NodeDescription::default()
            })),
            status: NodeStatus { addr: "10.1.2.3".into(), ..NodeStatus::default() },
            manager_addr: None,
            wanted_issuer: None,
        }
    }

    fn satisfied(text: &str) -> bool {
        text.parse::<Constraint>().unwrap().matches(&node())
    }

    #[test]
    fn every_attribute_is_compared_without_regard_to_case() {
        for text in [
            "node.id == 0123456789ABCDEFGHIJKLMNO",
            "NODE.HOSTNAME==alpha",
            "node.role==MANAGER",
            "node.platform.os==Linux",
            "node.platform.arch==x86_64",
            "node.labels.Zone==a",
            "engine.labels.disk==SSD",
        ] {
            assert!(satisfied(text), "{text}");
            assert!(!satisfied(&text.replace("==", "!=")), "{text}");
        }
        assert!(!satisfied("node.platform.arch==amd64"), "architectures are not made alike here");
    }

    #[test]
    fn a_label_that_is_not_there_is_empty_and_its_key_has_a_case() {
        assert!(satisfied("node.labels.zone!=a"));
        assert!(!satisfied("node.labels.zone==a"));
    }

    #[test]
    fn addresses_match_alone_and_by_network_and_malformed_ones_never() {
        for text in ["node.ip==10.1.2.3", "node.ip==10.1.0.0/16", "node.ip==0.0.0.0/0", "node.ip!=10.1.2.4"] {
            assert!(satisfied(text), "{text}");
        }
        for text in ["node.ip!=10.1.0.0/16", "node.ip==10.2.0.0/16", "node.ip==::/0"] {
            assert!(!satisfied(text), "{text}");
        }
        for text in ["10.1.2", "10.1.2.3/33", "10.1.2.3/x", "host"] {
            assert!(!satisfied(&format!("node.ip=={text}")) && !satisfied(&format!("node.ip!={text}")), "{text}");
        }
    }

    #[test]
    fn an_unknown_key_never_matches() {
        assert!(!satisfied("node.colour==red") && !satisfied("node.colour!=red"));
        assert!(!satisfied("node.labels.!=x"));
    }

    #[test]
    fn malformed_constraints_are_refused_with_dockers_texts() {
        for (text, error) in [
            ("node.role", "constraint expected one operator from ==, !="),
            ("node.role=manager", "constraint expected one operator from ==, !="),
            ("1node==a", "key '1node' is invalid"),
            ("no de==a", "key 'no de' is invalid"),
            ("==a", "key '' is invalid"),
            ("node.id==", "value '' is invalid"),
            ("node.id==a#b", "value 'a#b' is invalid"),
            ("node.id!=a==b", "key 'node.id!=a' is invalid"),
        ] {
            assert_eq!(text.parse::<Constraint>().unwrap_err().to_string(), error);
        }
    }
}
