//! Several members: what a client was told stays true, whoever fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::raft::VoteRequest;
use shoal_types::View;
use tempfile::TempDir;

use super::net::{Net, Node, Weather, cluster, found, leader, until, write};
use super::{KEY, limited, put, slots, task_id};
use crate::frame::{DataKey, Frame};
use crate::media::Files;
use crate::message::{Answer, Call, Piece, What, decode, encode};
use crate::snapshot::SnapshotDir;
use crate::types::{Lineage, LogId, Vote};
use crate::{
    AdmitError, DismissError, HandOverError, Member, NoPeers, OpenError, Raft, Update, WriteError, WriteFailure,
};

async fn all_see(nodes: &[Node], number: u64) {
    for node in nodes.iter().filter(|n| n.runs()) {
        node.sees(number).await;
    }
}

fn same_everywhere(nodes: &[Node]) {
    let first = slots(nodes[0].raft());
    for node in nodes {
        assert_eq!(slots(node.raft()), first, "{}", node.addr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_reaches_all_members_and_only_the_leader_takes_one() {
    let net = Arc::new(Net::default());
    let nodes = cluster(&net, 3).await;
    put(nodes[0].raft(), 1, 1).await.unwrap();
    all_see(&nodes, 1).await;
    let refused = put(nodes[1].raft(), 2, 1).await;
    assert!(matches!(refused, Err(WriteError::Failed(WriteFailure::NotLeader))));
    for node in &nodes {
        let number = nodes[0].number();
        node.raft()
            .leader()
            .wait_for(|l| l.as_ref().is_some_and(|(n, m)| *n == number && m.addr == "a"))
            .await
            .unwrap();
        let (leader, voters) = node.raft().members();
        assert_eq!((leader, voters.len()), (Some(number), 3));
        until(|| nodes.iter().all(|other| node.raft().reachable(other.number())), "all reach all").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_dies_another_one_takes_writes_and_the_dead_one_catches_up_later() {
    let net = Arc::new(Net::default());
    let mut nodes = cluster(&net, 3).await;
    put(nodes[0].raft(), 1, 1).await.unwrap();
    nodes[0].kill().await;
    let began = Instant::now();
    write(&nodes, 2).await;
    println!("the next write was accepted after {:?}", began.elapsed());
    let next = leader(&nodes).await;
    let dead = nodes.iter().position(|n| !n.runs()).unwrap();
    until(|| next.raft().members().1.iter().any(|(n, m)| m.addr == "a" && !next.raft().reachable(*n)), "a is missed")
        .await;
    nodes[dead].reopen().await;
    write(&nodes, 3).await;
    all_see(&nodes, 3).await;
    same_everywhere(&nodes);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_and_seven_members_survive_the_loss_of_two_and_three() {
    for (count, dies) in [(5, 2), (7, 3)] {
        let net = Arc::new(Net::default());
        let mut nodes = cluster(&net, count).await;
        for node in nodes.iter_mut().take(dies) {
            node.kill().await;
        }
        write(&nodes, 1).await;
        all_see(&nodes, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_says_so_and_what_it_could_not_finish_is_not_reported_as_lost() {
    let net = Arc::new(Net::default());
    let nodes = cluster(&net, 3).await;
    put(nodes[0].raft(), 1, 1).await.unwrap();
    net.isolate("a");
    let began = Instant::now();
    let pending = put(nodes[0].raft(), 2, 1).await;
    let Err(WriteError::Failed(failure @ WriteFailure::Unknown)) = pending else { panic!("{pending:?}") };
    assert_eq!(failure.to_string(), "raft: failed to process the request: node lost leader status");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(matches!(put(nodes[0].raft(), 3, 1).await, Err(WriteError::Failed(WriteFailure::NotLeader))));
    assert_eq!(nodes[0].raft().read_index().await, None);
    nodes[0].raft().leader().wait_for(Option::is_none).await.unwrap();

    write(&nodes[1..], 4).await;
    net.heal();
    write(&nodes[1..], 5).await;
    all_see(&nodes, 5).await;
    assert!(!nodes[0].leads());
    same_everywhere(&nodes);
    assert_eq!(slots(nodes[0].raft()), [1, 4, 5], "nobody else had it, so it is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_cut_off_does_not_depose_the_leader_when_it_comes_back() {
    let net = Arc::new(Net::default());
    let nodes = cluster(&net, 3).await;
    put(nodes[0].raft(), 1, 1).await.unwrap();
    let term = *nodes[0].raft().leadership().borrow();
    net.isolate("c");
    nodes[2].raft().leader().wait_for(Option::is_none).await.unwrap();
    // Long enough to have stood for election several times.
    let until_then = Instant::now() + Duration::from_secs(4);
    let mut number = 2;
    while Instant::now() < until_then {
        put(nodes[0].raft(), number, 1).await.unwrap();
        number += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    net.heal();
    all_see(&nodes, number - 1).await;
    put(nodes[0].raft(), number, 1).await.unwrap();
    assert_eq!(*nodes[0].raft().leadership().borrow(), term);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_wait_for_each_other_and_go_on_in_the_same_term() {
    let net = Arc::new(Net::default());
    let mut nodes = cluster(&net, 2).await;
    put(nodes[0].raft(), 1, 1).await.unwrap();
    nodes[1].kill().await;
    let waits = put(nodes[0].raft(), 2, 1).await;
    assert!(matches!(waits, Err(WriteError::Failed(WriteFailure::Unknown))), "{waits:?}");
    nodes[1].reopen().await;
    write(&nodes, 3).await;
    all_see(&nodes, 3).await;
    assert_eq!(slots(nodes[0].raft()), [1, 2, 3], "the leader had it, so it became true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_far_behind_gets_a_snapshot_through_a_bad_network() {
    let net = Arc::new(Net::default());
    let mut nodes = Vec::new();
    for addr in ["a", "b", "c"] {
        let dir = TempDir::new().unwrap();
        nodes.push(Node::open_with(&net, addr, limited(dir.path(), 20, 5), Some(dir)).await);
    }
    found(&nodes).await;
    nodes[2].kill().await;
    for number in 1..=60 {
        put(nodes[0].raft(), number, 60_000).await.unwrap();
    }
    until(|| nodes[0].raft().core.metrics().borrow().purged.is_some_and(|p| p.index > 20), "the log is cut").await;
    net.set(|w| *w = Weather { lost: 10, doubled: 20, delay: Some(0..30), ..Weather::default() });
    nodes[2].reopen().await;
    let (_, mut feed) = nodes[2].raft().subscribe();
    nodes[2].sees(60).await;
    let mut resynced = false;
    while let Some(update) = feed.try_next() {
        resynced |= matches!(update, Update::Resync(s) if s.tasks().count() > 0);
    }
    assert!(resynced, "those who follow are told to start over");
    net.heal();
    write(&nodes, 61).await;
    all_see(&nodes, 61).await;
    same_everywhere(&nodes);
    // It is on its disk, too.
    nodes[2].kill().await;
    nodes[2].reopen().await;
    assert!(slots(nodes[2].raft()).len() > 20);
    all_see(&nodes, 61).await;
}

/// The snapshots that are on the disk of `node`.
fn snapshots(node: &Node) -> SnapshotDir {
    let config = &node.config;
    SnapshotDir::open(Arc::new(Files), &config.dir.join("snapshots"), config.key.clone()).unwrap()
}

/// A snapshot of `node` as it is now, as it is sent.
async fn sent(node: &Node) -> (impl Fn(u64) -> Piece, Vec<u8>) {
    node.raft().keeper.save(0).await.unwrap();
    let (meta, pieces) = snapshots(node).pieces().unwrap().unwrap();
    let (content, rest) = (pieces.next().unwrap().unwrap(), pieces.next().unwrap());
    assert!(rest.is_none(), "it is sent in one piece");
    let vote = node.raft().newest_vote();
    (move |transfer| Piece { vote, transfer, seq: 0, meta: Some(meta.clone()), is_last: true }, content)
}

#[tokio::test]
async fn two_sendings_of_one_snapshot_at_a_time_do_not_spoil_each_other() {
    let net = Arc::new(Net::default());
    let nodes = cluster(&net, 1).await;
    for number in 1..=3 {
        put(nodes[0].raft(), number, 1).await.unwrap();
    }
    let (piece, content) = sent(&nodes[0]).await;
    let mut learner = Node::open(&net, "b").await;
    let inbox = learner.raft().inbox.clone();
    let (one, other) = tokio::join!(inbox.take(piece(1), content.clone()), inbox.take(piece(2), content));
    assert!(one.unwrap().2 && other.unwrap().2, "both are told that it is there");
    drop(inbox);
    learner.kill().await;
    learner.reopen().await;
    assert_eq!(slots(learner.raft()), [1, 2, 3], "it is on its disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_comes_and_is_not_wanted_does_not_take_away_the_one_that_is_there() {
    let net = Arc::new(Net::default());
    let nodes = cluster(&net, 2).await;
    put(nodes[0].raft(), 1, 1).await.unwrap();
    nodes[1].sees(1).await;
    nodes[1].raft().keeper.save(0).await.unwrap();
    put(nodes[0].raft(), 2, 1).await.unwrap();
    nodes[1].sees(2).await;
    let (piece, content) = sent(&nodes[0]).await;
    nodes[1].raft().inbox.take(piece(1), content).await.unwrap();
    let (_, pieces) = snapshots(&nodes[1]).pieces().unwrap().expect("what was there before");
    assert_eq!(pieces.decode().unwrap().tasks().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_writes_arrive_over_a_link_that_is_slower_than_a_heartbeat() {
    let net = Arc::new(Net::default());
    let nodes = cluster(&net, 3).await;
    let term = *nodes[0].raft().leadership().borrow();
    net.set(|w| w.delay = Some(150..250));
    for number in 1..=3 {
        put(nodes[0].raft(), number, 1_000_000).await.unwrap();
    }
    all_see(&nodes, 3).await;
    assert_eq!(*nodes[0].raft().leadership().borrow(), term, "nobody was deposed");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_while_members_die_and_messages_are_lost() {
    let net = Arc::new(Net::default());
    let mut nodes = cluster(&net, 3).await;
    net.set(|w| *w = Weather { lost: 5, doubled: 5, delay: Some(0..10), ..Weather::default() });
    let mut number = 1;
    for round in 0..6 {
        for _ in 0..10 {
            write(&nodes, number).await;
            number += 1;
        }
        let victim = nodes.iter().position(Node::leads).unwrap_or(round % 3);
        nodes[victim].kill().await;
        write(&nodes, number).await;
        number += 1;
        nodes[victim].reopen().await;
    }
    net.heal();
    write(&nodes, number).await;
    all_see(&nodes, number).await;
    same_everywhere(&nodes);
    assert_eq!(slots(nodes[0].raft()), Vec::from_iter(1..=number));
}

#[tokio::test(flavor = "multi_thread")]
async fn admission_is_the_same_twice_takes_a_new_address_and_gives_up_on_who_does_not_answer() {
    let net = Arc::new(Net::default());
    let mut nodes = cluster(&net, 2).await;
    let index = nodes[0].raft().core.metrics().borrow().last_log_index;
    nodes[0].raft().admit(nodes[1].number(), nodes[1].member()).await.unwrap();
    assert_eq!(nodes[0].raft().core.metrics().borrow().last_log_index, index, "nothing was written");
    let not_here = nodes[1].raft().admit(5, Member::default()).await;
    assert_eq!(not_here, Err(AdmitError::NotLeader));

    let third = Node::open(&net, "c").await;
    nodes[0].raft().admit(third.number(), third.member()).await.unwrap();
    nodes.push(third);
    let number = nodes[2].number();
    nodes[2].kill().await;
    nodes[2].addr = "z".into();
    nodes[2].reopen().await;
    nodes[0].raft().admit(number, nodes[2].member()).await.unwrap();
    put(nodes[0].raft(), 1, 1).await.unwrap();
    nodes[2].sees(1).await;
    let (_, voters) = nodes[2].raft().members();
    assert_eq!(voters.iter().filter(|(_, m)| m.addr == "z").count(), 1);
    assert_eq!(voters.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_dismissed_learns_of_it_and_the_quorum_is_not_given_away() {
    let net = Arc::new(Net::default());
    let mut nodes = cluster(&net, 3).await;
    nodes[0].raft().dismiss(nodes[2].number()).await.unwrap();
    nodes[2].raft().removed().wait_for(|gone| *gone).await.unwrap();
    nodes[0].raft().dismiss(nodes[2].number()).await.unwrap();
    assert_eq!(nodes[0].raft().members().1.len(), 2);

    // One that did not hear of it is told when it asks.
    let mut third = Node::open(&net, "d").await;
    nodes[0].raft().admit(third.number(), third.member()).await.unwrap();
    let number = third.number();
    third.kill().await;
    nodes[0].raft().dismiss(number).await.unwrap();
    third.reopen().await;
    third.raft().removed().wait_for(|gone| *gone).await.unwrap();
    assert!(!*nodes[1].raft().removed().borrow());

    let third = Node::open(&net, "e").await;
    nodes[0].raft().admit(third.number(), third.member()).await.unwrap();
    let (second, lost) = (nodes[1].number(), third.number());
    nodes[1].kill().await;
    until(|| !nodes[0].raft().reachable(second), "the dead one is missed").await;
    let refused = nodes[0].raft().dismiss(lost).await.unwrap_err();
    assert_eq!(refused, DismissError::LossOfQuorum);
    let text = "can't remove member from the raft: this would result in a loss of quorum";
    assert_eq!(refused.to_string(), text);
    nodes[0].raft().dismiss(second).await.unwrap();
    put(nodes[0].raft(), 1, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_hands_over_before_it_leaves_and_when_it_stops() {
    let net = Arc::new(Net::default());
    let mut nodes = cluster(&net, 3).await;
    put(nodes[0].raft(), 1, 1).await.unwrap();
    nodes[0].raft().dismiss(nodes[0].number()).await.unwrap();
    nodes[0].raft().removed().wait_for(|gone| *gone).await.unwrap();
    write(&nodes[1..], 2).await;
    let first = nodes.iter().position(Node::leads).unwrap();
    assert_ne!(first, 0);
    assert_eq!(nodes[first].raft().members().1.len(), 2);

    let other = nodes[0].raft().hand_over().await;
    assert_eq!(other, Err(HandOverError::NotLeader));
    let heir = 3 - first;
    nodes[first].raft().hand_over().await.unwrap();
    write(&nodes, 3).await;
    assert!(nodes[heir].leads());
    nodes[heir].stop().await;
    let waits = put(nodes[first].raft(), 4, 1).await;
    assert!(waits.is_err(), "two of two are needed");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_over_from_a_leader_whose_others_are_gone_and_it_goes_on() {
    let net = Arc::new(Net::default());
    let nodes = cluster(&net, 3).await;
    net.set(|w| w.lost = 0);
    let alone = Node::open(&net, "x").await;
    alone.raft().begin(alone.member()).await.unwrap();
    alone.raft().leadership().wait_for(Option::is_some).await.unwrap();
    assert_eq!(alone.raft().hand_over().await, Err(HandOverError::NobodyThere));
    assert_eq!(alone.raft().dismiss(alone.number()).await, Err(DismissError::LossOfQuorum));
    alone.raft().leadership().wait_for(Option::is_some).await.unwrap();
    put(alone.raft(), 1, 1).await.unwrap();
    drop(nodes);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_manager_goes_on_alone_by_force_with_everything_and_takes_others_in_again() {
    let net = Arc::new(Net::default());
    let mut nodes = cluster(&net, 3).await;
    for number in 1..=5 {
        put(nodes[0].raft(), number, 1).await.unwrap();
    }
    all_see(&nodes, 5).await;
    let number = nodes[1].number();
    for node in &mut nodes {
        node.kill().await;
    }
    for _ in 0..2 {
        nodes[1].config.force_new = true;
        nodes[1].reopen().await;
        nodes[1].raft().leadership().wait_for(Option::is_some).await.unwrap();
        assert_eq!(slots(nodes[1].raft()), [1, 2, 3, 4, 5]);
        assert_eq!(nodes[1].raft().members().1.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [number]);
        nodes[1].stop().await;
    }
    nodes[1].config.force_new = false;
    nodes[1].reopen().await;
    nodes[1].raft().leadership().wait_for(Option::is_some).await.unwrap();
    let new = Node::open(&net, "n").await;
    nodes[1].raft().admit(new.number(), new.member()).await.unwrap();
    put(nodes[1].raft(), 6, 1).await.unwrap();
    new.sees(6).await;
    assert_eq!(slots(new.raft()), [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn managers_that_come_back_after_another_was_forced_end_and_do_not_disturb_it() {
    let net = Arc::new(Net::default());
    let mut nodes = cluster(&net, 3).await;
    put(nodes[0].raft(), 1, 1).await.unwrap();
    all_see(&nodes, 1).await;
    for node in &mut nodes {
        node.kill().await;
    }
    nodes[1].config.force_new = true;
    nodes[1].reopen().await;
    nodes[1].raft().leadership().wait_for(Option::is_some).await.unwrap();
    put(nodes[1].raft(), 2, 1).await.unwrap();
    // The two others are a majority of what there was; while they do not meet the third, they are a cluster.
    net.set(|w| {
        w.cut = ["a", "c"].iter().flat_map(|o| [(o.to_string(), "b".into()), ("b".into(), o.to_string())]).collect()
    });
    nodes[0].reopen().await;
    nodes[2].reopen().await;
    let old = async |node: &Node| node.raft().leadership().wait_for(Option::is_some).await.map(drop);
    tokio::select! { one = old(&nodes[0]) => one.unwrap(), other = old(&nodes[2]) => other.unwrap() }
    let term = *nodes[1].raft().leadership().borrow();
    net.heal();
    for place in [0, 2] {
        nodes[place].raft().removed().wait_for(|removed| *removed).await.unwrap();
        nodes[place].raft().stopped().await;
        assert!(nodes[place].raft().is_superseded());
    }
    put(nodes[1].raft(), 3, 1).await.unwrap();
    assert_eq!((slots(nodes[1].raft()), *nodes[1].raft().leadership().borrow()), (vec![1, 2, 3], term));
    // Who joins the new cluster is known to be of it, and the old ones do not get at it either.
    let new = Node::open(&net, "n").await;
    nodes[1].raft().admit(new.number(), new.member()).await.unwrap();
    new.sees(3).await;
    nodes[0].kill().await;
    nodes[0].reopen().await;
    nodes[0].raft().removed().wait_for(|removed| *removed).await.unwrap();
    assert_eq!(new.raft().lineage(), nodes[1].raft().lineage());
    assert!(!votes_for(&new, &nodes[2]).await);
}

/// Whether anything in `node`'s directory can be read with `key` alone, and whether everything can.
fn readable(node: &Node, key: &DataKey) -> (bool, bool) {
    let places = [("log", 16), ("snapshots", 8)];
    let files = places.iter().flat_map(|(dir, head)| {
        let files = std::fs::read_dir(node.config.dir.join(dir)).unwrap();
        files.map(|f| (f.unwrap().path(), *head))
    });
    let (mut some, mut all) = (false, true);
    for (path, head) in files {
        let bytes = std::fs::read(&path).unwrap();
        // The vote has two places of its own, without a head.
        let starts = if path.ends_with("vote") { vec![0, 4096] } else { vec![head] };
        for mut at in starts {
            loop {
                match key.open(&bytes[at..]) {
                    Ok(Frame::Record { len, .. }) => (some, at) = (true, at + len),
                    Ok(_) => break,
                    Err(_) => {
                        all = false;
                        break;
                    }
                }
            }
        }
    }
    (some, all)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_change_of_keys_nothing_on_disk_needs_the_old_one() {
    let net = Arc::new(Net::default());
    let mut nodes = cluster(&net, 3).await;
    for number in 1..=50 {
        put(nodes[0].raft(), number, 1).await.unwrap();
    }
    all_see(&nodes, 50).await;
    let (was, new) = (DataKey::new(&KEY), DataKey::new(&[99; 32]));
    assert_eq!(readable(&nodes[0], &was), (true, true));
    // The leader, and one that follows; the third one is away, and misses what the log no longer has.
    nodes[2].kill().await;
    put(nodes[0].raft(), 51, 1).await.unwrap();
    for node in &nodes[..2] {
        node.raft().change_key(&[99; 32]).await.unwrap();
        assert_eq!(readable(node, &was), (false, false), "the old key is of no use");
        assert_eq!(readable(node, &new), (true, true), "and the new one is enough");
    }
    nodes[2].reopen().await;
    put(nodes[0].raft(), 52, 1).await.unwrap();
    all_see(&nodes, 52).await;
    for place in [0, 1] {
        nodes[place].kill().await;
        nodes[place].config.key = DataKey::after(&[99; 32], &[KEY]);
        nodes[place].reopen().await;
        nodes[place].raft().shed_older_keys().await.unwrap();
    }
    write(&nodes, 53).await;
    all_see(&nodes, 53).await;
    same_everywhere(&nodes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_anywhere_sees_what_was_answered_before() {
    let net = Arc::new(Net::default());
    let nodes = cluster(&net, 3).await;
    for number in 1..=30 {
        put(nodes[0].raft(), number, 1).await.unwrap();
        assert_eq!(nodes[1].raft().read_index().await, None, "only the leader knows");
        let index = nodes[0].raft().read_index().await.unwrap();
        let reader = &nodes[(number % 3) as usize];
        assert!(reader.raft().applied(index).await);
        assert!(reader.raft().snapshot().task(task_id(number)).is_some());
    }
}

/// Flips a bit in the middle of what a member's log holds: entries that were safe.
fn damage(node: &Node) {
    let log = node.config.dir.join("log");
    let segments = std::fs::read_dir(log).unwrap().map(|f| f.unwrap().path());
    let path = segments.filter(|p| p.extension().is_some_and(|e| e == "log")).max().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|b| *b != 0).unwrap();
    bytes[end / 2] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Whether `node` votes for `candidate`, whatever that one has.
async fn votes_for(node: &Node, candidate: &Node) -> bool {
    let request = VoteRequest::new(Vote::new(1_000, candidate.number()), Some(LogId::default()));
    let body =
        encode(&Call { from: candidate.number(), lineage: Some(Lineage::default()), what: What::Vote(request) }, &[])
            .unwrap();
    let answer = node.raft().serve(body).await.unwrap();
    match decode(&answer).unwrap().0 {
        Answer::Vote(response) => response.vote_granted,
        Answer::Foreign { .. } => false,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_disk_lost_what_it_had_promised_gives_no_vote_until_the_leader_has_sent_it_again() {
    let net = Arc::new(Net::default());
    let mut nodes = cluster(&net, 3).await;
    for number in 1..=20 {
        put(nodes[0].raft(), number, 1).await.unwrap();
    }
    all_see(&nodes, 20).await;
    nodes[2].kill().await;
    damage(&nodes[2]);
    net.isolate("c");
    nodes[2].reopen().await;
    assert!(nodes[2].raft().is_in_doubt());
    assert!(!votes_for(&nodes[2], &nodes[1]).await);
    nodes[2].kill().await;
    nodes[2].reopen().await;
    assert!(nodes[2].raft().is_in_doubt(), "it does not forget");
    net.heal();
    until(|| !nodes[2].raft().is_in_doubt(), "everything was sent again").await;
    write(&nodes, 21).await;
    all_see(&nodes, 21).await;
    same_everywhere(&nodes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_is_alone_and_has_lost_what_it_had_promised_goes_on_only_by_force() {
    let net = Arc::new(Net::default());
    let mut node = Node::open(&net, "a").await;
    found(std::slice::from_ref(&node)).await;
    for number in 1..=20 {
        put(node.raft(), number, 1).await.unwrap();
    }
    node.kill().await;
    damage(&node);
    for _ in 0..2 {
        let refused = Raft::open(&node.config, Arc::new(NoPeers)).await.unwrap_err();
        assert!(matches!(refused, OpenError::Lost { .. }), "{refused}");
    }
    node.config.force_new = true;
    node.reopen().await;
    node.raft().leadership().wait_for(Option::is_some).await.unwrap();
    let left = slots(node.raft());
    assert!(!left.is_empty() && left.len() < 20);
    assert_eq!(left, Vec::from_iter(1..=left.len() as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_starts_alone_shows_what_was_agreed_on() {
    let net = Arc::new(Net::default());
    let mut nodes = cluster(&net, 3).await;
    for number in 1..=3 {
        put(nodes[0].raft(), number, 1).await.unwrap();
    }
    all_see(&nodes, 3).await;
    for node in &mut nodes {
        node.kill().await;
    }
    nodes[1].reopen().await;
    assert_eq!(slots(nodes[1].raft()), [1, 2, 3]);
}
