//! Where this node is found while the machine's addresses change: at a start, and later. Its identity is its key; the other
//! managers are told where it is by `admission`.

use std::sync::Arc;
use std::time::Duration;

use crate::addresses::{Addresses, interfaces, lacks_named, moved, own, resolve};
use crate::membership::Membership;
use crate::paths::{Paths, Saved};

/// How often the machine is asked what it has.
const LOOK: Duration = Duration::from_secs(3);
/// An address has moved when this was found so often in a row: interfaces are set up anew now and then, and those of a
/// machine that has just started come one after the other.
const SEEN: u32 = 3;

/// The addresses as the machine has them now; those of before where it cannot say. One that a user named is not given up at
/// once: its interface may not be there yet.
pub fn at_start(paths: &Paths, saved: Saved) -> Addresses {
    let found = interfaces().map_err(|e| e.to_string()).and_then(|found| {
        if lacks_named(&saved.asked, &saved.own, &found) {
            return Ok(saved.addresses.clone());
        }
        resolve(&saved.asked, &found, saved.toward).map_err(|e| e.to_string())
    });
    match found {
        Ok(addresses) if addresses != saved.addresses => {
            tracing::info!(advertise = %addresses.advertise, "the address of this node has changed");
            keep(paths, &Saved { addresses: addresses.clone(), ..saved });
            addresses
        }
        Ok(addresses) => addresses,
        Err(reason) => {
            tracing::warn!(reason, "going on with the addresses of before");
            saved.addresses
        }
    }
}

/// Follows the machine's addresses, for ever. The manager on this node starts again where it is then.
pub async fn follow(membership: Arc<Membership>) {
    let mut saved = match membership.paths.load() {
        Ok(Some(saved)) => saved,
        other => {
            tracing::error!(?other, "cannot read the addresses of this node; they are not followed");
            return;
        }
    };
    let (mut seen, mut told) = ((None, 0), None);
    loop {
        match look(&mut saved) {
            Ok((new, is_news)) => {
                seen = if seen.0 == new { (new, seen.1 + 1) } else { (new, 1) };
                told = None;
                if let (Some(addresses), SEEN..) = &seen {
                    let before = saved.addresses.advertise;
                    tracing::warn!(%before, advertise = %addresses.advertise, "the address of this node has changed");
                    saved.addresses = addresses.clone();
                    keep(&membership.paths, &saved);
                    membership.addresses.send_replace(addresses.clone());
                } else if is_news {
                    keep(&membership.paths, &saved);
                }
            }
            Err(reason) => {
                if told.as_ref() != Some(&reason) {
                    let advertise = saved.addresses.advertise;
                    tracing::warn!(reason, %advertise, "the address of this node is gone, and it cannot choose another");
                    told = Some(reason);
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Where the node is to be found, if that is elsewhere by now; and whether the machine has more of its addresses than before.
fn look(saved: &mut Saved) -> Result<(Option<Addresses>, bool), String> {
    let found = interfaces().map_err(|e| e.to_string())?;
    let mut all = own(&saved.asked, &saved.addresses, &found);
    all.extend(saved.own.iter().copied());
    all.sort_unstable();
    all.dedup();
    let is_news = saved.own != all;
    saved.own = all;
    let moved = moved(&saved.asked, &saved.own, &saved.addresses, &found, saved.toward);
    moved.map(|new| (new, is_news)).map_err(|e| e.to_string())
}

fn keep(paths: &Paths, saved: &Saved) {
    if let Err(error) = paths.save(saved) {
        tracing::warn!(%error, "cannot save the addresses of this node");
    }
}
