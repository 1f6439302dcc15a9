//! Which nodes can take a task, and the words for those that cannot (swarm-semantics 4.2).

use shoal_types::constraint;
use shoal_types::object::{NodeDescription, NodeState};
use shoal_types::spec::Availability;

use crate::demand::{Demand, normal};
use crate::index::{NodeInfo, Nodes};

/// The filters, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Filter {
    Ready,
    Resource,
    Plugin,
    Constraint,
    Platform,
    HostPort,
    MaxReplicas,
}

const ALL: [Filter; 7] = [
    Filter::Ready,
    Filter::Resource,
    Filter::Plugin,
    Filter::Constraint,
    Filter::Platform,
    Filter::HostPort,
    Filter::MaxReplicas,
];

/// The first filter that keeps tasks with `demand` off `info`.
pub(crate) fn first(info: &NodeInfo, demand: &Demand) -> Option<Filter> {
    ALL.into_iter().find(|filter| !filter.passes(info, demand))
}

/// How many nodes each filter keeps tasks with `demand` off.
pub(crate) fn count(nodes: &Nodes, demand: &Demand) -> Vec<(Filter, usize)> {
    let mut counts = ALL.map(|filter| (filter, 0));
    for filter in nodes.known().filter_map(|(_, info)| first(info, demand)) {
        counts[filter as usize].1 += 1;
    }
    counts.into_iter().filter(|(_, n)| *n > 0).collect()
}

/// The sentence for a task that has to wait: what keeps most nodes away comes first.
pub(crate) fn explain(counts: &[(Filter, usize)]) -> String {
    let mut counts = counts.to_vec();
    counts.sort_by_key(|(filter, n)| (std::cmp::Reverse(*n), *filter));
    let reasons: Vec<_> = counts.iter().map(|(filter, n)| filter.explain(*n)).collect();
    match reasons[..] {
        [] => "no suitable node".into(),
        _ => format!("no suitable node ({})", reasons.join("; ")),
    }
}

// === impl Filter ===

impl Filter {
    fn passes(self, info: &NodeInfo, demand: &Demand) -> bool {
        let Some(node) = &info.node else { return false };
        let description = node.description.as_deref();
        match self {
            Self::Ready => node.status.state == NodeState::Ready && node.spec.availability == Availability::Active,
            Self::Resource => fits(info, description, demand),
            Self::Plugin => description.is_none_or(|d| has_drivers(d, demand)),
            Self::Constraint => demand.constraints.as_ref().is_some_and(|all| constraint::matches(all, node)),
            Self::Platform => demand.platforms.is_empty() || description.is_some_and(|d| is_platform(d, demand)),
            Self::HostPort => !demand.load.ports.iter().any(|port| info.ports.contains_key(port)),
            Self::MaxReplicas => demand.max_replicas == 0 || u64::from(info.of(demand.group.0)) < demand.max_replicas,
        }
    }

    fn explain(self, nodes: usize) -> String {
        let (one, many) = match self {
            Self::Ready => ("1 node not available for new tasks", "{} nodes not available for new tasks"),
            Self::Resource => ("insufficient resources on 1 node", "insufficient resources on {} nodes"),
            Self::Plugin => ("missing plugin on 1 node", "missing plugin on {} nodes"),
            Self::Constraint => {
                ("scheduling constraints not satisfied on 1 node", "scheduling constraints not satisfied on {} nodes")
            }
            Self::Platform => ("unsupported platform on 1 node", "unsupported platform on {} nodes"),
            Self::HostPort => ("host-mode port already in use on 1 node", "host-mode port already in use on {} nodes"),
            // that spelling, and no count: clients know it so
            Self::MaxReplicas => ("max replicas per node limit exceed", "max replicas per node limit exceed"),
        };
        if nodes == 1 { one.into() } else { many.replace("{}", &nodes.to_string()) }
    }
}

/// Only what is reserved counts, never limits.
fn fits(info: &NodeInfo, description: Option<&NodeDescription>, demand: &Demand) -> bool {
    let has = description.map(|d| (d.resources.nano_cpus, d.resources.memory_bytes)).unwrap_or_default();
    let fits = |wanted: i64, has: i64, taken: i64| wanted <= 0 || has.saturating_sub(taken) >= wanted;
    let load = &demand.load;
    fits(load.nano_cpus, has.0, info.nano_cpus) && fits(load.memory, has.1, info.memory) && demand.claim(info).is_some()
}

fn has_drivers(description: &NodeDescription, demand: &Demand) -> bool {
    let plugins = &description.engine.plugins;
    let has = |kind: &str, name: &str| {
        let same = |p: &str| p == name || p.strip_suffix(":latest") == Some(name);
        plugins.iter().any(|p| p.r#type == kind && same(&p.name))
    };
    // a node that reports no log drivers at all is one that does not report them
    let log = |name: &String| has("Log", name) || !plugins.iter().any(|p| p.r#type == "Log");
    demand.drivers.iter().all(|(kind, name)| has(kind, name)) && demand.log_driver.as_ref().is_none_or(log)
}

fn is_platform(description: &NodeDescription, demand: &Demand) -> bool {
    let own = normal(&description.platform);
    let same = |wanted: &str, own: &str| wanted.is_empty() || wanted == own;
    demand.platforms.iter().any(|p| same(&p.os, &own.os) && same(&p.architecture, &own.architecture))
}
