//! A request that is sent again is carried out once, and answered as the first time.

use shoal_types::id::SecretKind;
use shoal_types::spec::{ClusterSpec, PayloadSpec};
use shoal_types::{PayloadClass, View};

use super::payload::PayloadRequest;
use super::request::Ticket;
use super::*;
use crate::testing::{Fixture, Trio, service};

fn create(name: &str) -> Request {
    Request::CreateService { spec: Box::new(service(name, 0)), auth: None }
}

fn remove(name: &str) -> Request {
    Request::RemoveService { input: name.to_owned() }
}

fn secret(name: &str) -> Request {
    let spec = PayloadSpec { name: name.into(), data: b"x".to_vec().into(), ..PayloadSpec::default() };
    Request::Payload(PayloadClass::Secret, PayloadRequest::Create(spec))
}

fn again(ticket: Ticket) -> Option<Ticket> {
    Some(Ticket { again: true, ..ticket })
}

#[tokio::test]
async fn a_request_that_comes_twice_is_carried_out_once_and_answered_twice() {
    let f = Fixture::new(ClusterSpec::initial()).await;
    let here = Here::new(f.raft.clone());
    for request in [create("web"), secret("s")] {
        let ticket = Ticket::new();
        let first = here.carry_out(request.clone(), Some(ticket)).await.unwrap();
        assert_eq!(here.carry_out(request.clone(), again(ticket)).await.unwrap(), first);
        // The first message may come after the second one.
        assert_eq!(here.carry_out(request, Some(ticket)).await.unwrap(), first);
    }
    assert_eq!((f.raft.snapshot().services().count(), f.raft.snapshot().secrets().count()), (1, 1));
    // What was removed is not found any more, and not what others have made since under the same name.
    let ticket = Ticket::new();
    here.carry_out(remove("web"), Some(ticket)).await.unwrap();
    let other = f.control.create_service(service("web", 0), None).await.unwrap();
    here.carry_out(remove("web"), again(ticket)).await.unwrap();
    assert!(f.raft.snapshot().service(other).is_some());
    // Nor is it an update that came too late, where it was this very update that made it so.
    let version = f.control.get_service("web").unwrap().meta.version;
    let update = ServiceUpdate { version, ..ServiceUpdate::default() };
    let update = Request::UpdateService { input: "web".into(), spec: Box::new(service("web", 1)), update };
    let ticket = Ticket::new();
    here.carry_out(update.clone(), Some(ticket)).await.unwrap();
    here.carry_out(update.clone(), again(ticket)).await.unwrap();
    let late = here.carry_out(update, Some(Ticket::new())).await.unwrap_err();
    assert_eq!(late, Halt::Refused(Refusal::out_of_sequence()));
}

#[tokio::test]
async fn a_refusal_of_a_second_attempt_is_the_last_word_for_the_first_one_too() {
    let f = Fixture::new(ClusterSpec::initial()).await;
    let here = Here::new(f.raft.clone());
    let ticket = Ticket::new();
    let refused = here.carry_out(remove("web"), again(ticket)).await.unwrap_err();
    f.control.create_service(service("web", 0), None).await.unwrap();
    // The client was told that nothing was removed. The message that was on its way all the time must not do it now.
    assert_eq!(here.carry_out(remove("web"), Some(ticket)).await.unwrap_err(), refused);
    assert!(f.control.get_service("web").is_ok());
}

#[tokio::test]
async fn the_next_leader_knows_what_the_one_before_has_done() {
    let trio = Trio::new().await;
    let old = trio.leader(None).await;
    let ticket = Ticket::new();
    let here = |place: usize| Here::new(trio.managers[place].raft.clone());
    let made = here(old).carry_out(create("web"), Some(ticket)).await.unwrap();
    trio.stop(old).await;
    let new = trio.leader(Some(old)).await;
    assert_eq!(here(new).carry_out(create("web"), again(ticket)).await.unwrap(), made);
    assert_eq!(trio.managers[new].raft.snapshot().services().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_write_while_a_leader_is_cut_off_see_no_error_and_every_write_is_there_once() {
    let trio = Trio::new().await;
    let old = trio.leader(None).await;
    let write = |place: usize, number: usize| {
        let control = trio.managers[place].control.clone();
        async move {
            let name = format!("web-{place}-{number}");
            let id = control.create_service(service(&name, 0), None).await.unwrap();
            let seen = control.get_service(&name).unwrap();
            assert_eq!(seen.id, id);
            let update = ServiceUpdate { version: seen.meta.version, ..ServiceUpdate::default() };
            control.update_service(&name, service(&name, 1), update).await.unwrap();
            control.remove_service(&name).await.unwrap();
            control.create_service(service(&name, 2), None).await.unwrap();
        }
    };
    let [one, other] = [(old + 1) % 3, (old + 2) % 3];
    let clients = (0..8).map(|client| {
        let place = if client % 2 == 0 { one } else { other };
        let (write, lost) = (&write, &trio.managers[old].manager);
        async move {
            // Until there is another leader, and some more after that.
            let (mut number, mut after) = (0, 0);
            while after < 3 {
                after += usize::from(lost.active().now().is_none());
                write(place, client * 1_000 + number).await;
                number += 1;
            }
            number
        }
    });
    let cut = async {
        // Some are under way.
        let mut events = trio.managers[one].control.follow();
        for _ in 0..20 {
            events.next().await;
        }
        trio.cut(Some(old));
        0
    };
    let (counts, _) = tokio::join!(futures::future::join_all(clients), cut);
    let view = trio.managers[one].raft.snapshot();
    assert_eq!(view.services().count(), counts.into_iter().sum::<usize>());
    assert!(view.services().all(|s| s.spec.mode.replicas() == 2));
}

#[tokio::test]
async fn secrets_are_answered_with_their_identifier() {
    let f = Fixture::new(ClusterSpec::initial()).await;
    let spec = PayloadSpec { name: "s".into(), data: b"x".to_vec().into(), ..PayloadSpec::default() };
    let id = f.control.create_payload::<SecretKind>(spec).await.unwrap();
    assert!(f.raft.snapshot().secret(id).is_some());
}
