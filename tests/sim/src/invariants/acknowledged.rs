//! Every service whose creation was answered is there, unless somebody removed it; whose removal was answered, is gone.

use shoal_types::View;

use crate::cluster::Cluster;
use crate::ledger::Fate;

pub fn check(cluster: &Cluster) -> Vec<String> {
    let state = cluster.site.observer.latest();
    let fates = cluster.ledger.fates();
    let wrong = fates.into_iter().filter_map(|(name, fate)| {
        let there = state.service_named(&name).is_some();
        match fate {
            Fate::Present if !there => Some(format!("the creation of {name} was answered, and it is not there")),
            Fate::Absent if there => Some(format!("the removal of {name} was answered, and it is still there")),
            _ => None,
        }
    });
    wrong.collect()
}
