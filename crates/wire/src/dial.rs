//! How a manager reaches other managers. The node implements it: it holds the certificate.

use std::fmt;
use std::time::Duration;

use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;

use crate::UplinkError;

/// Under this name a manager that does not lead says in a refusal where the leader listens: `host:port`.
const LEADER: &str = "shoal-leader";

/// How long a manager may take to answer a call that it can answer at once.
pub const PROMPT: Duration = Duration::from_secs(5);

/// Opens connections to managers, as this node.
#[tonic::async_trait]
pub trait Dial: Send + Sync + 'static {
    /// A connection to the manager that listens on `addr` (`host:port`). Connections are kept, so this is cheap; one that
    /// broke is opened anew by the next call over it.
    ///
    /// # Errors
    /// The address is none, or this node's certificate cannot be used. That nobody answers shows with the first call.
    async fn dial(&self, addr: &str) -> Result<Channel, UplinkError>;
}

impl fmt::Debug for dyn Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dial")
    }
}

/// The refusal of a manager that does not lead: who does, if that is known.
pub fn not_leader(leader: Option<&str>) -> Status {
    let mut metadata = MetadataMap::new();
    let value = leader.and_then(|addr| addr.parse().ok());
    metadata.insert(LEADER, value.unwrap_or(MetadataValue::from_static("")));
    Status::with_metadata(tonic::Code::Unavailable, "this manager does not lead", metadata)
}

/// Who leads, by a refusal.
pub fn leader_in(refusal: &Status) -> Option<&str> {
    refusal.metadata().get(LEADER)?.to_str().ok().filter(|addr| !addr.is_empty())
}

/// Whether a refusal is that of a manager that does not lead: it has done nothing of what it was asked.
pub fn is_not_leader(refusal: &Status) -> bool {
    refusal.metadata().contains_key(LEADER)
}

/// Whether a call failed because there was no connection: nobody has heard of it.
pub fn never_sent(failure: &Status) -> bool {
    let first: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(failure);
    std::iter::successors(first, |error| error.source()).any(|error| error.is::<tonic::ConnectError>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_leader_where_one_is_known() {
        assert_eq!(leader_in(&not_leader(Some("10.0.0.1:2377"))), Some("10.0.0.1:2377"));
        assert_eq!(leader_in(&not_leader(None)), None);
        assert_eq!(leader_in(&Status::unavailable("x")), None);
        assert!(is_not_leader(&not_leader(None)) && !is_not_leader(&Status::unavailable("x")));
    }

    #[tokio::test]
    async fn a_call_that_nobody_answers_was_never_sent() {
        use crate::proto;
        // A port that was free a moment ago.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{addr}")).unwrap();
        let mut client = proto::control_client::ControlClient::new(endpoint.connect_lazy());
        let failure = client.read_index(proto::ControlReadIndex {}).await.unwrap_err();
        assert!(never_sent(&failure), "{failure:?}");
        assert!(!never_sent(&Status::unavailable("x")));
    }
}
