//! The session: a node introduces itself, the leader tells it who it is.

use std::time::Duration;

use shoal_types::NodeId;
use shoal_types::object::{Node, NodeDescription};

use crate::body::{decode, encode, id};
use crate::{WireError, proto};

/// A node's wish for a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// What it is.
    pub description: NodeDescription,
    /// The session to go on with; empty for a new one.
    pub session_id: String,
}

/// What a node must know to take part. Sent at once and on every change.
#[derive(Debug, Clone, PartialEq)]
pub struct Welcome {
    /// Names the session in all further calls.
    pub session_id: String,
    /// The node as the cluster sees it.
    pub node: Node,
    /// The managers, to reconnect to any of them.
    pub managers: Vec<Manager>,
    /// Time until the first heartbeat is due.
    pub heartbeat_period: Duration,
    /// The certificates that the cluster trusts, PEM.
    pub root_ca: String,
}

/// A manager of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Manager {
    /// Its node.
    pub node_id: NodeId,
    /// Where it listens: `host:port`.
    pub addr: String,
}

impl TryFrom<Hello> for proto::SessionRequest {
    type Error = WireError;

    fn try_from(hello: Hello) -> Result<Self, WireError> {
        let description_json = encode("the description of a node", &hello.description)?;
        Ok(Self { description_json, session_id: hello.session_id })
    }
}

impl TryFrom<proto::SessionRequest> for Hello {
    type Error = WireError;

    fn try_from(request: proto::SessionRequest) -> Result<Self, WireError> {
        let description = decode("the description of a node", &request.description_json)?;
        Ok(Self { description, session_id: request.session_id })
    }
}

impl TryFrom<Welcome> for proto::SessionMessage {
    type Error = WireError;

    fn try_from(welcome: Welcome) -> Result<Self, WireError> {
        Ok(Self {
            node_json: encode("a node", &welcome.node)?,
            session_id: welcome.session_id,
            managers: welcome.managers.into_iter().map(Into::into).collect(),
            heartbeat_period: to_nanos(welcome.heartbeat_period),
            root_ca: welcome.root_ca,
        })
    }
}

impl TryFrom<proto::SessionMessage> for Welcome {
    type Error = WireError;

    fn try_from(message: proto::SessionMessage) -> Result<Self, WireError> {
        if message.session_id.is_empty() {
            return Err(WireError::Missing { what: "the session's identifier" });
        }
        Ok(Self {
            node: decode("a node", &message.node_json)?,
            session_id: message.session_id,
            managers: message.managers.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            heartbeat_period: period(message.heartbeat_period)?,
            root_ca: message.root_ca,
        })
    }
}

impl From<Manager> for proto::Manager {
    fn from(manager: Manager) -> Self {
        Self { node_id: manager.node_id.to_string(), addr: manager.addr }
    }
}

impl TryFrom<proto::Manager> for Manager {
    type Error = WireError;

    fn try_from(manager: proto::Manager) -> Result<Self, WireError> {
        Ok(Self { node_id: id("node", &manager.node_id)?, addr: manager.addr })
    }
}

/// A heartbeat period as it travels.
pub fn to_nanos(period: Duration) -> i64 {
    i64::try_from(period.as_nanos()).unwrap_or(i64::MAX)
}

/// A heartbeat period as it came.
///
/// # Errors
/// [`WireError::Range`] unless it is positive.
pub fn period(nanos: i64) -> Result<Duration, WireError> {
    match u64::try_from(nanos) {
        Ok(nanos) if nanos > 0 => Ok(Duration::from_nanos(nanos)),
        _ => Err(WireError::Range { what: "a heartbeat period of", value: nanos }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_that_is_not_positive_is_refused() {
        assert!(matches!(period(0), Err(WireError::Range { .. })));
        assert!(matches!(period(-1), Err(WireError::Range { .. })));
        assert_eq!(period(to_nanos(Duration::from_secs(5))).unwrap(), Duration::from_secs(5));
    }

    #[test]
    fn a_description_survives_the_way() {
        let description = NodeDescription { hostname: "a".into(), ..NodeDescription::default() };
        let hello = Hello { description, session_id: "s".into() };
        let request = proto::SessionRequest::try_from(hello.clone()).unwrap();
        assert_eq!(Hello::try_from(request).unwrap(), hello);
    }

    #[test]
    fn a_broken_description_is_named() {
        let request = proto::SessionRequest { description_json: b"{".to_vec(), session_id: String::new() };
        let error = Hello::try_from(request).unwrap_err();
        assert!(error.to_string().starts_with("cannot read the description of a node: "), "{error}");
    }
}
