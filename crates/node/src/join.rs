//! `docker swarm join` (swarm-semantics 9, 13.3): the root certificate, checked against the token; a certificate for this
//! node's new key; then what every member does. Nothing remains of a join that failed.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rcgen::KeyPair;
use serde::Deserialize;
use shoal_manager::ca::JoinToken;
use shoal_types::spec::{Availability, NodeRole};
use shoal_types::{Refusal, RefusalKind};
use shoal_wire::proto::IssueRequest;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::addresses::{Asked, DEFAULT_PORT};
use crate::authority::{self, AuthorityError};
use crate::identity::Identity;
use crate::init::{addresses, availability, failed};
use crate::joining::Joining;
use crate::member::{Member, farewell};
use crate::membership::Membership;
use crate::node::{Node, already, unavailable};
use crate::paths::Saved;
use crate::supervise::{Running, Start, Status};
use crate::vault::Vault;

/// How long a client waits; the join goes on in the background then.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often all managers that were named are asked, where they refuse and where nothing comes back; the pause in between.
const TRIES: (u32, u32) = (5, 30);
const PAUSE: Duration = Duration::from_secs(2);

/// The body of `POST /swarm/join`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JoinRequest {
    /// Where to listen, should this be a manager: address or interface, with or without port.
    pub listen_addr: String,
    /// Where others reach this node: the same; empty: the address that it uses towards the managers.
    pub advertise_addr: String,
    /// Where the traffic of containers goes: address or interface; empty: as advertised.
    pub data_path_addr: String,
    /// Managers of the swarm: `host:port` or `host`.
    pub remote_addrs: Vec<String>,
    /// `SWMTKN-1-…`; says whether as worker or as manager.
    pub join_token: String,
    /// Whether this node takes tasks; empty: `active`.
    pub availability: String,
}

/// A join that came about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Joined {
    /// Sentences for the user.
    pub warnings: Vec<String>,
}

/// What was checked.
pub(crate) struct Checked {
    joining: Joining,
    token: JoinToken,
    /// How often the managers are asked that cannot be reached.
    tries: u32,
}

impl Node {
    /// Joins the swarm of the managers that are named. Takes 20 s at most; goes on in the background then.
    ///
    /// # Errors
    /// What the request cannot mean, in Docker's words; `This node is already part of a swarm. …`; what the managers refuse;
    /// `Timeout was reached before node joined. …`.
    pub async fn join(self: &Arc<Self>, request: JoinRequest) -> Result<Joined, Refusal> {
        if !matches!(self.status(), Status::Inactive) {
            return Err(already());
        }
        let checked = check(request)?;
        let (tell, told) = oneshot::channel();
        tokio::spawn(self.clone().join_in_background(checked, tell));
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(joined)) => joined,
            Ok(Err(_)) => Err(failed(&"the join was given up")),
            Err(_) => Err(unavailable(
                "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. \
                 Use the \"docker info\" command to see the current swarm status of your node.",
            )),
        }
    }

    /// Goes on with a join that a crash cut short.
    pub(crate) async fn resume_join(self: Arc<Self>, joining: Joining) {
        tracing::info!("going on with the join that this node had begun");
        match joining.token.parse() {
            // The network of a machine that starts may take its time.
            Ok(token) => drop(self.go_through(Checked { joining, token, tries: TRIES.1 }, true).await),
            Err(error) => {
                tracing::warn!(%error, "the join that was begun cannot go on");
                self.undo("a join");
            }
        }
    }

    async fn join_in_background(self: Arc<Self>, checked: Checked, tell: oneshot::Sender<Result<Joined, Refusal>>) {
        // The client may have gone meanwhile: then so has the answer.
        drop(tell.send(self.go_through(checked, false).await));
    }

    async fn go_through(&self, checked: Checked, is_resumed: bool) -> Result<Joined, Refusal> {
        let mut member = self.member.lock().await;
        if !is_resumed && (member.is_some() || !matches!(self.status(), Status::Inactive)) {
            return Err(already());
        }
        self.status.send_replace(Status::Pending);
        let quit = CancellationToken::new();
        *self.joining.lock().expect("nothing panics while it is held") = Some(quit.clone());
        let joined = match self.enter(checked, is_resumed, &quit).await {
            Ok((entered, joined)) => {
                *member = Some(entered);
                Ok(joined)
            }
            Err(refusal) => {
                tracing::warn!(%refusal, "this node did not join the swarm");
                self.undo("a join");
                Err(refusal)
            }
        };
        self.joining.lock().expect("nothing panics while it is held").take();
        joined
    }

    /// Each step leaves something on disk that a daemon goes on from that starts again: the request with its key, then the
    /// certificate.
    async fn enter(
        &self,
        checked: Checked,
        is_resumed: bool,
        quit: &CancellationToken,
    ) -> Result<(Member, Joined), Refusal> {
        let (dir, saved) = (self.paths.certificates(), &checked.joining.saved);
        if !is_resumed {
            // What a crash during an earlier one may have left.
            self.paths.wipe().map_err(|e| failed(&e))?;
            checked.joining.save(&dir).map_err(|e| failed(&e))?;
        }
        let identity = tokio::select! {
            identity = enrol(&checked) => identity?,
            () = quit.cancelled() => return Err(given_up()),
        };
        self.paths.save(saved).map_err(|e| failed(&e))?;
        let vault = Vault::new(dir.clone());
        let membership = Membership::new(self.paths.clone(), vault, identity.clone(), saved.addresses.clone());
        let membership = membership.map_err(|e| failed(&e))?;
        saved.remotes.iter().for_each(|addr| membership.remotes.hint(addr));
        self.set_local(Some(membership.clone()));
        let entered = async {
            membership.vault.keep(&identity).map_err(|e| failed(&e))?;
            Joining::forget(&dir).map_err(|e| failed(&e))?;
            self.begin_as_member(&membership, quit).await
        };
        let (member, joined) = match entered.await {
            Ok(entered) => entered,
            Err(refusal) => {
                // The cluster already counts this node.
                farewell(&membership).await;
                return Err(if quit.is_cancelled() { given_up() } else { refusal });
            }
        };
        tokio::select! {
            () = membership.greeted() => Ok((member, joined)),
            () = quit.cancelled() => {
                member.leave().await;
                Err(given_up())
            }
        }
    }

    async fn begin_as_member(
        &self,
        membership: &Arc<Membership>,
        quit: &CancellationToken,
    ) -> Result<(Member, Joined), Refusal> {
        let running = match membership.role() {
            NodeRole::Worker => None,
            NodeRole::Manager => Some(Running::start(membership, Start::Resume, quit).await.map_err(|e| failed(&e))?),
        };
        let warnings = running.as_ref().and_then(|r| r.managers).map(warnings).unwrap_or_default();
        let member = Member::start(membership.clone(), running, &self.status, &*self.launcher).await;
        Ok((member.map_err(|error| failed(&error))?, Joined { warnings }))
    }
}

/// Asks the managers that were named for a certificate.
async fn enrol(checked: &Checked) -> Result<Identity, Refusal> {
    let key = checked.joining.key().map_err(|e| failed(&e))?;
    let mut tries = 0;
    loop {
        tries += 1;
        let mut last = None;
        for addr in &checked.joining.saved.remotes {
            match ask(addr, checked, &key).await {
                Ok(identity) => return Ok(identity),
                Err(error) if !error.is_passing() => return Err(error.into()),
                Err(error) => last = Some(error),
            }
        }
        let limit = match last {
            Some(AuthorityError::Silent | AuthorityError::Uplink(_)) => TRIES.1,
            _ => checked.tries,
        };
        match last {
            Some(error) if tries < limit => tracing::info!(%error, "no manager answers yet"),
            Some(error) => return Err(error.into()),
            None => return Err(at_least_one()),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(addr: &str, checked: &Checked, key: &KeyPair) -> Result<Identity, AuthorityError> {
    let root = authority::root(addr, &checked.token).await?;
    let availability = match checked.joining.availability {
        Availability::Active => "active",
        Availability::Pause => "pause",
        Availability::Drain => "drain",
    };
    let request = IssueRequest {
        token: checked.joining.token.clone(),
        availability: availability.to_owned(),
        ..IssueRequest::default()
    };
    authority::join(addr, &root, request, key).await
}

fn check(request: JoinRequest) -> Result<Checked, Refusal> {
    let remotes: Vec<String> =
        request.remote_addrs.iter().filter(|a| !a.is_empty()).map(|addr| with_port(addr)).collect();
    let Some(first) = remotes.first() else { return Err(at_least_one()) };
    let availability = availability(&request.availability)?;
    let token: JoinToken = request.join_token.parse().map_err(|e| failed(&e))?;
    let asked =
        Asked { listen: request.listen_addr, advertise: request.advertise_addr, data_path: request.data_path_addr };
    let toward: Option<SocketAddr> = first.to_socket_addrs().ok().and_then(|mut addrs| addrs.next());
    let saved = Saved { addresses: addresses(&asked, toward)?, asked, toward, remotes, own: Vec::new() };
    let joining = Joining::new(saved, availability, request.join_token).map_err(|e| failed(&e))?;
    Ok(Checked { joining, token, tries: TRIES.0 })
}

/// `host:port`, with the usual port where none is given.
fn with_port(addr: &str) -> String {
    if addr.parse::<SocketAddr>().is_ok() {
        return addr.to_owned();
    }
    match addr.parse::<std::net::IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, DEFAULT_PORT).to_string(),
        Err(_) if addr.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => addr.to_owned(),
        Err(_) => format!("{addr}:{DEFAULT_PORT}"),
    }
}

/// What a manager should know that joined as one of so many.
fn warnings(managers: u32) -> Vec<String> {
    if managers == 2 { vec![crate::info::TWO_MANAGERS.to_owned()] } else { Vec::new() }
}

fn at_least_one() -> Refusal {
    Refusal::engine(RefusalKind::InvalidArgument, "at least 1 RemoteAddr is required to join")
}

fn given_up() -> Refusal {
    unavailable("The join was given up: this node was told to leave or to stop.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers_are_named_with_or_without_port() {
        for (given, want) in [
            ("10.0.0.1:2377", "10.0.0.1:2377"),
            ("10.0.0.1", "10.0.0.1:2377"),
            ("fd00::1", "[fd00::1]:2377"),
            ("[fd00::1]:99", "[fd00::1]:99"),
            ("manager", "manager:2377"),
            ("manager:99", "manager:99"),
        ] {
            assert_eq!(with_port(given), want);
        }
    }

    #[test]
    fn what_a_join_cannot_mean_is_refused_in_dockers_words() {
        let refused = |change: fn(&mut JoinRequest)| {
            let mut request = JoinRequest {
                remote_addrs: vec!["127.0.0.1:1".into()],
                join_token: shoal_manager::ca::new_token("root"),
                ..JoinRequest::default()
            };
            change(&mut request);
            check(request).err().expect("it is refused").to_string()
        };
        assert_eq!(refused(|r| r.remote_addrs.clear()), "at least 1 RemoteAddr is required to join");
        assert_eq!(refused(|r| r.join_token = "x".into()), "invalid join token");
        assert_eq!(refused(|r| r.availability = "x".into()), "invalid Availability: \"x\"");
        assert!(refused(|r| r.advertise_addr = "x".into()).starts_with("advertise address must be"));
    }
}
