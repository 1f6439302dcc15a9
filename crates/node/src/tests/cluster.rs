//! Several nodes on one machine, each with a port of its own: real log, real certificates, real wire; only containers are
//! said to run.

use std::time::Duration;

use shoal_manager::control::{ClusterUpdate, ManagerStatus, Reachability, Rotate};
use shoal_types::spec::{ClusterSpec, NodeRole, NodeSpec};
use shoal_types::{Cluster, NodeId};

use super::*;
use crate::join::Joined;

/// A node and what it stands on.
struct Machine {
    dir: TempDir,
    port: u16,
    node: Arc<Node>,
}

impl Machine {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (node, _) = node(dir.path()).await;
        Self { dir, port: free_port(), node }
    }

    fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    async fn begin() -> Self {
        let machine = Self::new().await;
        machine.node.init(request(machine.port)).await.unwrap();
        machine
    }

    async fn join(&self, via: &Self, role: NodeRole) -> Result<Joined, Refusal> {
        let tokens = via.cluster().root_ca.clone();
        let token = match role {
            NodeRole::Worker => tokens.worker_token,
            NodeRole::Manager => tokens.manager_token,
        };
        self.join_by(&via.addr(), token).await
    }

    async fn join_by(&self, via: &str, join_token: String) -> Result<Joined, Refusal> {
        let (listen_addr, advertise_addr) = (self.addr(), self.addr());
        let remote_addrs = vec![via.to_owned()];
        let request = JoinRequest { listen_addr, advertise_addr, remote_addrs, join_token, ..JoinRequest::default() };
        self.node.join(request).await
    }

    async fn joined(via: &Self, role: NodeRole) -> Self {
        let machine = Self::new().await;
        machine.join(via, role).await.unwrap();
        machine
    }

    async fn restart(&mut self) {
        self.node.stop().await;
        self.node = node(self.dir.path()).await.0;
    }

    fn id(&self) -> NodeId {
        self.node.id().unwrap()
    }

    fn cluster(&self) -> Arc<Cluster> {
        self.node.control().unwrap().get_cluster().unwrap()
    }

    fn managing(&self, node: NodeId) -> Option<ManagerStatus> {
        self.node.control().unwrap().manager_status(node)
    }

    /// Waits until `holds` is true of what this manager knows.
    async fn until(&self, what: &str, holds: impl Fn(&shoal_raft::Snapshot) -> bool) {
        let control = self.node.control().unwrap();
        let mut events = control.follow();
        let wait = async {
            while !holds(&control.snapshot()) {
                events.next().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect(what);
    }

    async fn until_ready(&self, count: usize) {
        let ready = |n: &&Arc<shoal_types::Node>| n.status.state == NodeState::Ready;
        self.until("nodes are ready", |view| view.nodes().filter(ready).count() == count).await;
    }

    async fn until_status(&self, what: &str, holds: impl FnMut(&Status) -> bool) {
        let mut status = self.node.status.subscribe();
        let wait = status.wait_for(holds);
        drop(tokio::time::timeout(Duration::from_secs(30), wait).await.expect(what).unwrap());
    }

    async fn set_role(&self, node: NodeId, role: NodeRole) -> Result<(), Refusal> {
        let control = self.node.control()?;
        let known = control.get_node(node.as_str())?;
        let spec = NodeSpec { role, ..known.spec.clone() };
        control.update_node(node.as_str(), known.meta.version, spec).await
    }

    async fn update(&self, change: impl FnOnce(&mut ClusterSpec), rotate: Rotate) -> Result<(), Refusal> {
        let cluster = self.cluster();
        let mut spec = cluster.spec.clone();
        change(&mut spec);
        self.node.control()?.update_cluster(ClusterUpdate { version: cluster.meta.version, spec, rotate }).await
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.dir.path()).unwrap().count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_change_their_roles_and_leave() {
    let first = Machine::begin().await;
    let second = Machine::new().await;
    let joined = second.join(&first, NodeRole::Manager).await.unwrap();
    assert!(joined.warnings[0].contains("two-manager configuration"), "{joined:?}");
    assert_eq!(second.node.ping(), "active/manager");
    assert_eq!(first.node.info().await.cluster.unwrap().warnings.len(), 1);
    // Through a manager that does not lead.
    let third = Machine::joined(&second, NodeRole::Worker).await;
    assert_eq!((third.node.ping(), third.node.info().await.control_available), ("active/worker", false));
    assert!(text(third.node.control().map(drop), 503).contains("Worker nodes can't be used to view"));
    first.until_ready(3).await;
    second.until_ready(3).await;
    assert!(first.managing(first.id()).unwrap().is_leader);
    let status = second.managing(second.id()).unwrap();
    assert_eq!((status.reachability, status.addr), (Reachability::Reachable, second.addr()));

    // A write on one is seen on the other, and tasks run on all.
    let control = second.node.control().unwrap();
    control.create_service(service("web", 6), None).await.unwrap();
    running(&first.node, "web", 6).await;

    second.set_role(third.id(), NodeRole::Manager).await.unwrap();
    third.until_status("the worker is a manager", |s| matches!(s, Status::Active(_))).await;
    third.until_ready(3).await;
    assert!(first.node.info().await.cluster.unwrap().warnings.is_empty(), "three tolerate one failure");

    // The leader itself: another one takes over.
    third.set_role(first.id(), NodeRole::Worker).await.unwrap();
    first.until_status("the leader is a worker", |s| matches!(s, Status::Worker)).await;
    assert!(!first.dir.path().join("raft").exists(), "nothing of the state stays on a worker");
    third.until_ready(3).await;
    assert_eq!(third.managing(first.id()), None);

    // In use; then it leaves, and is known to have left at once.
    let refused = text(third.node.control().unwrap().remove_node(first.id().as_str(), false).await, 400);
    assert!(refused.ends_with("is not down and can't be removed"), "{refused}");
    let gone = first.id();
    first.node.leave(false).await.unwrap();
    assert_eq!((first.node.ping(), first.files()), ("inactive", 0));
    third.until("it is down", |v| v.node(gone).is_some_and(|n| n.status.state == NodeState::Down)).await;
    third.node.control().unwrap().remove_node(gone.as_str(), false).await.unwrap();
    first.join(&third, NodeRole::Worker).await.unwrap();
    assert_ne!(first.id(), gone, "it joins anew");
    third.until_ready(3).await;

    // One of two managers leaves: the other goes on alone.
    assert!(text(second.node.leave(false).await, 503).contains("Without a Raft quorum"));
    second.node.leave(true).await.unwrap();
    third.node.control().unwrap().create_service(service("alone", 1), None).await.unwrap();
    let refused = text(third.set_role(third.id(), NodeRole::Worker).await, 400);
    assert!(refused.ends_with("attempting to demote the last manager of the swarm"), "{refused}");
    first.node.stop().await;
    third.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_tokens_of_the_cluster_as_it_is_now_let_anyone_in_and_a_failed_join_leaves_nothing() {
    let first = Machine::begin().await;
    let stranger = Machine::new().await;
    let token = first.cluster().root_ca.worker_token.clone();
    let forged = format!("{}{}", &token[..80], "zzzzz");
    let refused = text(stranger.join_by(&first.addr(), forged).await, 400);
    let wanted = "rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster";
    assert_eq!(refused, wanted);
    let other = shoal_manager::ca::new_token("another root");
    let refused = text(stranger.join_by(&first.addr(), other).await, 500);
    assert!(refused.starts_with("remote CA does not match fingerprint. Expected: "), "{refused}");
    assert_eq!((stranger.node.ping(), stranger.files()), ("inactive", 0));

    first.update(|_| {}, Rotate { worker_token: true, ..Rotate::default() }).await.unwrap();
    assert_eq!(text(stranger.join_by(&first.addr(), token.clone()).await, 400), wanted);
    let renewed = first.cluster().root_ca.worker_token.clone();
    assert_eq!(renewed[..59], token[..59], "only the secret changes");

    // A manager that cannot be called back gets its answer, and nobody counts it.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = taken.local_addr().unwrap().to_string();
    let (listen_addr, join_token) = (stranger.addr(), first.cluster().root_ca.manager_token.clone());
    let remote_addrs = vec![first.addr()];
    let request =
        JoinRequest { listen_addr, advertise_addr: nowhere, remote_addrs, join_token, ..JoinRequest::default() };
    let refused = text(stranger.node.join(request).await, 500);
    assert!(refused.contains("could not connect to prospective new cluster member"), "{refused}");
    assert_eq!((stranger.node.ping(), stranger.files()), ("inactive", 0));
    first.until("the node is forgotten", |view| view.nodes().count() == 1).await;

    stranger.join_by(&first.addr(), renewed).await.unwrap();
    first.until_ready(2).await;

    // Removed by force while it is there: none of its calls is answered any more.
    let (id, identity) = (stranger.id(), kept(stranger.dir.path()).0);
    first.node.control().unwrap().remove_node(id.as_str(), true).await.unwrap();
    let channel = Dialer::new(watch::channel(identity).1).channel(&first.addr()).unwrap();
    let mut client = shoal_wire::proto::dispatcher_client::DispatcherClient::new(channel);
    let hello = Hello { description: Default::default(), session_id: String::new() };
    let status = client.session(shoal_wire::proto::SessionRequest::try_from(hello).unwrap()).await.unwrap_err();
    assert_eq!(status.message(), format!("Permission denied: node {id} was removed from swarm"));
    stranger.node.leave(false).await.unwrap();
    first.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_managers_need_the_key_after_a_restart() {
    let mut first = Machine::begin().await;
    let mut second = Machine::joined(&first, NodeRole::Manager).await;
    let key_file =
        |machine: &Machine| std::fs::read_to_string(machine.dir.path().join("certificates/swarm-node.key")).unwrap();
    assert_eq!(text(first.node.unlock("x").await, 400), "invalid key string");
    let lock = |on| move |spec: &mut ClusterSpec| spec.encryption_config.auto_lock_managers = on;
    assert_eq!(first.node.control().unwrap().unlock_key().unwrap(), "");
    let open = [&first, &second].map(|machine| kept(machine.dir.path()));
    second.update(lock(true), Rotate::default()).await.unwrap();
    let old = first.node.control().unwrap().unlock_key().unwrap();
    assert_eq!(text(first.node.unlock(&old).await, 409), "swarm is not locked");
    second.update(lock(true), Rotate { unlock_key: true, ..Rotate::default() }).await.unwrap();
    let key = second.node.control().unwrap().unlock_key().unwrap();
    assert_ne!(old, key);
    sealed(&first, &key).await;
    sealed(&second, &key).await;
    replaced(&first, &key, &open[0]).await;
    replaced(&second, &key, &open[1]).await;

    second.restart().await;
    assert_eq!((second.node.ping(), second.node.info().await.state), ("locked", LocalState::Locked));
    assert!(text(second.node.control().map(drop), 503).starts_with("Swarm is encrypted and needs to be unlocked"));
    assert!(text(second.node.leave(false).await, 503).starts_with("Swarm is encrypted and locked. Please unlock it"));
    let wrong = "swarm could not be unlocked: invalid key provided";
    assert_eq!(text(second.node.unlock(&old).await, 401), wrong);
    second.node.unlock(&key).await.unwrap();
    assert_eq!(second.node.ping(), "active/manager");
    second.until_ready(2).await;

    first.update(lock(false), Rotate::default()).await.unwrap();
    while key_file(&first).contains("SEALED") || key_file(&second).contains("SEALED") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    first.restart().await;
    assert_eq!(first.node.ping(), "active/manager");
    first.node.stop().await;
    second.node.stop().await;
}

/// Waits until what lay `open` before is of no use any more, neither the key of the log nor that of the certificate.
async fn replaced(machine: &Machine, key: &str, open: &(Identity, Vault)) {
    let (dir, key) = (machine.dir.path().join("certificates"), key.parse().unwrap());
    let (before, _) = open.1.log_keys().unwrap();
    let is_replaced = || match Vault::find(&dir).unwrap() {
        Found::Locked(locked) => locked.open(&key).unwrap().is_some_and(|(identity, vault)| {
            let (newest, older) = vault.log_keys().unwrap();
            newest != before && older.is_empty() && identity.issued().key_pem != open.0.issued().key_pem
        }),
        _ => false,
    };
    while !is_replaced() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the keys on disk are sealed with `key`.
async fn sealed(machine: &Machine, key: &str) {
    let (dir, key) = (machine.dir.path().join("certificates"), key.parse().unwrap());
    let is_sealed = || match Vault::find(&dir).unwrap() {
        Found::Locked(locked) => locked.open(&key).unwrap().is_some(),
        _ => false,
    };
    while !is_sealed() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_changes_node_by_node_and_tokens_with_it() {
    let first = Machine::begin().await;
    let second = Machine::joined(&first, NodeRole::Manager).await;
    let third = Machine::joined(&first, NodeRole::Worker).await;
    first.until_ready(3).await;
    let before = first.cluster().root_ca.clone();
    let external = second.update(|s| s.ca_config.external_cas = vec!["x".into()], Rotate::default()).await;
    assert!(text(external, 501).contains("an external certificate authority"));
    second.update(|spec| spec.ca_config.force_rotate = 1, Rotate::default()).await.unwrap();
    first
        .until("the rotation ends", |v| {
            v.cluster().is_some_and(|c| c.root_rotation.is_none() && c.root_ca.cert_pem != before.cert_pem)
        })
        .await;
    let after = first.cluster().root_ca.clone();
    assert!(before.worker_token != after.worker_token && before.manager_token != after.manager_token);
    let tls = shoal_manager::ca::tls_info(&after.cert_pem).unwrap();
    let described = |n: &Arc<shoal_types::Node>| n.description.as_ref().map(|d| d.tls_info.clone());
    first.until("all say so", |v| v.nodes().all(|n| described(n).as_ref() == Some(&tls))).await;
    for machine in [&first, &second, &third] {
        let identity = kept(machine.dir.path()).0;
        assert_eq!((identity.root_pem(), identity.tls_info().unwrap()), (after.cert_pem.as_str(), tls.clone()));
    }
    // All still reach each other, and others join.
    let fourth = Machine::joined(&second, NodeRole::Worker).await;
    first.until_ready(4).await;
    assert!(text(third.node.init(request(1)).await, 503).starts_with("This node is already part of a swarm"));
    for machine in [fourth, third, second, first] {
        machine.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_lost_the_others_goes_on_alone_with_everything() {
    let first = Machine::begin().await;
    let second = Machine::joined(&first, NodeRole::Manager).await;
    first.until_ready(2).await;
    first.node.control().unwrap().create_service(service("web", 1), None).await.unwrap();
    let (cluster, gone) = (first.cluster().id, first.id());
    // Also where its keys are sealed.
    first.update(|spec| spec.encryption_config.auto_lock_managers = true, Rotate::default()).await.unwrap();
    sealed(&second, &first.node.control().unwrap().unlock_key().unwrap()).await;
    first.node.stop().await;
    let alone = InitRequest { force_new_cluster: true, ..InitRequest::default() };
    let id = second.node.init(alone).await.unwrap();
    assert_eq!((id, second.cluster().id), (second.id(), cluster));
    let control = second.node.control().unwrap();
    assert_eq!(control.get_service("web").unwrap().spec.name, "web");
    control.create_service(service("more", 1), None).await.unwrap();
    assert!(second.managing(gone).is_none() && second.managing(id).unwrap().is_leader);
    second.until("the other is down", |v| v.node(gone).is_some_and(|n| n.status.state == NodeState::Down)).await;
    control.remove_node(gone.as_str(), false).await.unwrap();
    let third = Machine::joined(&second, NodeRole::Manager).await;
    third.until_ready(2).await;
    third.node.stop().await;
    second.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_that_come_back_after_another_was_forced_are_its_workers_until_somebody_promotes_them() {
    let mut first = Machine::begin().await;
    let second = Machine::joined(&first, NodeRole::Manager).await;
    let mut third = Machine::joined(&first, NodeRole::Manager).await;
    first.until_ready(3).await;
    first.node.stop().await;
    third.node.stop().await;
    let alone = InitRequest { force_new_cluster: true, ..InitRequest::default() };
    second.node.init(alone).await.unwrap();
    second.node.control().unwrap().create_service(service("web", 0), None).await.unwrap();
    // Both at once: a majority of what there was.
    tokio::join!(first.restart(), third.restart());
    for machine in [&first, &third] {
        machine.until_status("it is a worker", |s| matches!(s, Status::Worker)).await;
    }
    second.until_ready(3).await;
    let control = second.node.control().unwrap();
    assert!(control.get_service("web").is_ok(), "nobody else has written");
    assert_eq!(second.node.info().await.cluster.unwrap().managers, 1);
    second.set_role(third.id(), NodeRole::Manager).await.unwrap();
    third.until_status("it is a manager again", |s| matches!(s, Status::Active(_))).await;
    third.node.control().unwrap().create_service(service("more", 0), None).await.unwrap();
    for machine in [first, third, second] {
        machine.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_were_off_for_too_long_come_back_with_their_old_keys() {
    let mut first = Machine::begin().await;
    let mut second = Machine::joined(&first, NodeRole::Manager).await;
    let mut third = Machine::joined(&first, NodeRole::Worker).await;
    first.until_ready(3).await;
    let root = first.cluster().root_ca.clone();
    // A worker alone.
    third.node.stop().await;
    age(third.dir.path(), &root);
    third.restart().await;
    renewed(&third.node).await;
    first.until_ready(3).await;
    // All of them: no manager can prove itself to another one.
    for machine in [&first, &second, &third] {
        machine.node.stop().await;
        age(machine.dir.path(), &root);
    }
    let ids = [first.id(), second.id(), third.id()];
    tokio::join!(first.restart(), second.restart(), third.restart());
    tokio::join!(renewed(&first.node), renewed(&second.node), renewed(&third.node));
    assert_eq!([first.id(), second.id(), third.id()], ids);
    first.until_status("it works", |s| matches!(s, Status::Active(_))).await;
    first.until_ready(3).await;
    for machine in [first, second, third] {
        machine.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_moved_is_found_at_its_new_address() {
    let first = Machine::begin().await;
    let mut second = Machine::joined(&first, NodeRole::Manager).await;
    let third = Machine::joined(&first, NodeRole::Manager).await;
    first.until_ready(3).await;
    let id = second.id();
    second.node.stop().await;
    second.port = free_port();
    let paths = crate::paths::Paths::new(second.dir.path().to_owned());
    let mut saved = paths.load().unwrap().unwrap();
    (saved.asked.listen, saved.asked.advertise) = (second.addr(), second.addr());
    paths.save(&saved).unwrap();
    second.restart().await;
    assert_eq!(second.id(), id);
    let addr = second.addr();
    first.until("the others know", |v| v.node(id).is_some_and(|n| n.manager_addr.as_ref() == Some(&addr))).await;
    // Its vote counts: two of three go on.
    third.node.stop().await;
    second.node.control().unwrap().create_service(service("web", 0), None).await.unwrap();
    assert_eq!(first.managing(id).unwrap().addr, addr);
    first.node.stop().await;
    second.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_was_demoted_and_promoted_while_it_was_away_joins_anew() {
    let first = Machine::begin().await;
    let second = Machine::joined(&first, NodeRole::Manager).await;
    let mut third = Machine::joined(&first, NodeRole::Manager).await;
    first.until_ready(3).await;
    let id = third.id();
    third.node.stop().await;
    first.set_role(id, NodeRole::Worker).await.unwrap();
    first.until("it is dismissed", |view| view.node(id).is_some_and(|n| n.role == NodeRole::Worker)).await;
    first.set_role(id, NodeRole::Manager).await.unwrap();
    third.restart().await;
    first.until("it has a vote again", |view| view.node(id).is_some_and(|n| n.manager_addr.is_some())).await;
    third.until_status("it works", |s| matches!(s, Status::Active(_))).await;
    third.node.control().unwrap().create_service(service("web", 0), None).await.unwrap();
    for machine in [third, second, first] {
        machine.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_managers_that_move_at_once_find_each_other_through_the_third() {
    let mut machines = vec![Machine::begin().await];
    for _ in 0..2 {
        let one = Machine::joined(&machines[0], NodeRole::Manager).await;
        machines.push(one);
    }
    machines[0].until_ready(3).await;
    let ids: Vec<NodeId> = machines.iter().map(Machine::id).collect();
    for machine in &machines {
        machine.node.stop().await;
    }
    for machine in &mut machines[..2] {
        machine.port = free_port();
        let paths = crate::paths::Paths::new(machine.dir.path().to_owned());
        let mut saved = paths.load().unwrap().unwrap();
        (saved.asked.listen, saved.asked.advertise) = (machine.addr(), machine.addr());
        paths.save(&saved).unwrap();
    }
    let [one, two, three] = &mut machines[..] else { panic!("there are three") };
    tokio::join!(one.restart(), two.restart(), three.restart());
    assert_eq!(machines.iter().map(Machine::id).collect::<Vec<_>>(), ids);
    for machine in &machines {
        machine.until_status("it works", |s| matches!(s, Status::Active(_))).await;
    }
    let addrs: Vec<String> = machines.iter().map(Machine::addr).collect();
    let at = |v: &shoal_raft::Snapshot, n: usize| {
        v.node(ids[n]).is_some_and(|n_| n_.manager_addr.as_ref() == Some(&addrs[n]))
    };
    machines[2].until("all know where all are", |v| (0..3).all(|n| at(v, n))).await;
    machines[2].until_ready(3).await;
    machines[1].node.control().unwrap().create_service(service("web", 0), None).await.unwrap();
    for machine in machines {
        machine.node.stop().await;
    }
}

#[tokio::test]
async fn a_join_that_nobody_answers_says_so_and_can_be_given_up() {
    let stranger = Machine::new().await;
    let nobody = format!("127.0.0.1:{}", free_port());
    let token = shoal_manager::ca::new_token("root");
    let (node, via) = (stranger.node.clone(), nobody.clone());
    let request = JoinRequest {
        listen_addr: stranger.addr(),
        remote_addrs: vec![via],
        join_token: token,
        ..JoinRequest::default()
    };
    let joining = tokio::spawn(async move { node.join(request).await });
    stranger.until_status("it is on its way", |s| matches!(s, Status::Pending)).await;
    stranger.node.leave(false).await.unwrap();
    assert!(text(joining.await.unwrap(), 503).starts_with("The join was given up"));
    assert_eq!((stranger.node.ping(), stranger.files()), ("inactive", 0));
}

/// Copies what a node has on disk, as a crash would leave it.
fn crash(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            std::fs::create_dir_all(&copy).unwrap();
            crash(&path, &copy);
        } else {
            std::fs::copy(&path, &copy).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_goes_on_after_a_crash_with_the_same_key_and_is_the_same_node() {
    let first = Machine::begin().await;
    // Nobody answers yet: all that there is is the request.
    let mut stranger = Machine::new().await;
    let (node, listen_addr) = (stranger.node.clone(), stranger.addr());
    let (nobody, join_token) = (format!("127.0.0.1:{}", free_port()), first.cluster().root_ca.worker_token.clone());
    let (advertise_addr, remote_addrs) = (listen_addr.clone(), vec![nobody.clone()]);
    let request = JoinRequest { listen_addr, advertise_addr, remote_addrs, join_token, ..JoinRequest::default() };
    let joining = tokio::spawn(async move { node.join(request).await });
    let record = stranger.dir.path().join("certificates/join.json");
    while !record.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let left = TempDir::new().unwrap();
    crash(stranger.dir.path(), left.path());
    stranger.node.leave(false).await.unwrap();
    joining.await.unwrap().unwrap_err();
    let record = left.path().join("certificates/join.json");
    let text = std::fs::read_to_string(&record).unwrap().replace(&nobody, &first.addr());
    std::fs::write(&record, text).unwrap();
    let again = TempDir::new().unwrap();
    crash(left.path(), again.path());

    stranger.dir = left;
    stranger.node = super::node(stranger.dir.path()).await.0;
    first.until_ready(2).await;
    let id = stranger.id();
    assert!(!record.exists(), "the token and the key are not left about");
    // As if the certificate had been lost in the same crash: the managers know the key.
    stranger.node.stop().await;
    stranger.dir = again;
    stranger.node = super::node(stranger.dir.path()).await.0;
    first.until_ready(2).await;
    assert_eq!((stranger.id(), stranger.node.ping()), (id, "active/worker"));
    first.node.stop().await;
    stranger.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_has_but_its_certificate_goes_on_until_it_is_one_of_them() {
    let first = Machine::begin().await;
    let second = Machine::joined(&first, NodeRole::Manager).await;
    let mut third = Machine::joined(&first, NodeRole::Manager).await;
    first.until_ready(3).await;
    let (id, left) = (third.id(), TempDir::new().unwrap());
    third.node.stop().await;
    crash(third.dir.path(), left.path());
    for gone in ["raft", "worker"] {
        std::fs::remove_dir_all(left.path().join(gone)).unwrap();
    }
    // Nor has it heard of any manager but those that the user named.
    std::fs::remove_file(left.path().join("managers.json")).unwrap();
    third.dir = left;
    third.node = super::node(third.dir.path()).await.0;
    third.until_status("it is a manager", |s| matches!(s, Status::Active(_))).await;
    assert_eq!(third.id(), id);
    // Its vote counts: two of three go on.
    second.node.stop().await;
    third.node.control().unwrap().create_service(service("web", 0), None).await.unwrap();
    assert!(first.managing(id).is_some());
    first.node.stop().await;
    third.node.stop().await;
}
