//! What clients notice of a leader that is lost while they write: nothing but the time it takes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::Story;
use super::view::{Cluster, SOON};
use crate::cx::text;
use crate::error::{Failure, Result};
use crate::{ensure, same, story};

/// The stories of this part.
pub const STORIES: &[Story] = &[story!(Five, a_lost_leader_costs_clients_of_other_managers_no_error)];

/// Clients that write at the same time.
const CLIENTS: usize = 6;
/// Secrets that are made before the leader is lost, and after.
const MADE: usize = 30;

fn a_lost_leader_costs_clients_of_other_managers_no_error(cluster: &Cluster<'_>) -> Result<()> {
    let old = cluster.leader(1)?;
    let others = cluster.besides(old);
    let (over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let clients = std::thread::scope(|scope| {
        let write = |client: usize| {
            let via = others[client % others.len()];
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                one_life(cluster, via, &format!("{}-{client}-{count}", cluster.prefix()))?;
                count += 1;
                made.fetch_add(1, Ordering::Relaxed);
            }
            Ok(count)
        };
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || write(client))).collect();
        let enough = |count: usize| {
            let all_write = || clients.iter().all(|client| !client.is_finished());
            cluster.until("clients write", SOON, || {
                let so_far = made.load(Ordering::Relaxed);
                ensure!(so_far >= count || !all_write(), "{so_far} of {count}");
                Ok(so_far)
            })
        };
        let outcome = enough(MADE)
            .and_then(|_| cluster.lab.act("kill", &[old]))
            .and_then(|()| enough(made.load(Ordering::Relaxed) + MADE));
        over.store(true, Ordering::Relaxed);
        let counts =
            clients.into_iter().map(|client| client.join().map_err(|_| Failure::wrong("a client panicked"))?);
        let counts: Result<Vec<usize>> = counts.collect();
        outcome.and(counts)
    })?;
    let prefix = cluster.prefix();
    let left = cluster.lab.engine(others[0]).list("/secrets", &json!({"name": [format!("{prefix}-")]}))?;
    same!(left.len(), clients.iter().sum::<usize>(), "secrets, of which each client left one of each life");
    let again = left.iter().all(|secret| secret["Spec"]["Labels"]["life"] == "second");
    ensure!(again, "a removal or a creation is missing: {left:?}");
    cluster.lab.act("start", &[old])?;
    cluster.wait_managers(others[0], 3)
}

/// A secret is made, changed, removed, and made again. Each answer must be the one of a cluster that is well: a request that
/// was carried out twice would be refused, or undo what came after it.
fn one_life(cluster: &Cluster<'_>, via: usize, name: &str) -> Result<()> {
    let create = |life: &str| -> Result<String> {
        let body = json!({"Name": name, "Data": "c2VjcmV0", "Labels": {"life": life}});
        let made = cluster.call(via, "POST", "/secrets/create", Some(&body))?.status(201)?.json()?;
        Ok(text(&made["ID"]))
    };
    let id = create("first")?;
    let seen: Value = cluster.call(via, "GET", &format!("/secrets/{id}"), None)?.status(200)?.json()?;
    let path = format!("/secrets/{id}/update?version={}", seen["Version"]["Index"]);
    cluster.call(via, "POST", &path, Some(&json!({"Name": name, "Labels": {"life": "over"}})))?.status(200)?;
    cluster.call(via, "DELETE", &format!("/secrets/{id}"), None)?.status(204)?;
    create("second").map(drop)
}
