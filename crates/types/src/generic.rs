//! Generic resources: things that a node only counts (`ssd=3`) or knows by name (`gpu=UUID1`), and that a service may
//! reserve (swarm-semantics 4.6).
//!
//! Owns their forms, and what a claim on a node's stock gets. Leaves to others: which node (`schedule`).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// One generic resource: what a node has, what a service asks for, or what a task was given. The JSON form is Docker's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GenericResource {
    /// A number of things of one kind.
    #[serde(rename = "DiscreteResourceSpec", rename_all = "PascalCase")]
    Discrete {
        /// What they are.
        #[serde(default)]
        kind: String,
        /// How many.
        #[serde(default)]
        value: i64,
    },
    /// One thing with a name of its own.
    #[serde(rename = "NamedResourceSpec", rename_all = "PascalCase")]
    Named {
        /// What it is.
        #[serde(default)]
        kind: String,
        /// Which one.
        #[serde(default)]
        value: String,
    },
}

/// Why texts are not the generic resources of a node. Docker's texts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenericError {
    /// No `KIND=VALUE`.
    #[error("could not parse GenericResource: incorrect term {0}, missing '=' or malformed expression")]
    Term(String),
    /// Less than nothing of a kind.
    #[error("could not parse GenericResource: cannot ask for negative resource {0}")]
    Negative(String),
    /// A kind that is counted more than once, or counted and named.
    #[error("could not parse GenericResource: mixed discrete and named resources in expression '{kind}=[{values}]'")]
    Mixed {
        /// The kind.
        kind: String,
        /// All that was given for it.
        values: String,
    },
}

/// Reads what a daemon is told that its node has, `KIND=VALUE` each: whole numbers count, anything else is a name.
///
/// # Errors
/// The first term that cannot be read, or the first kind that is given in two ways.
pub fn parse(terms: &[String]) -> Result<Vec<GenericResource>, GenericError> {
    let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for term in terms {
        let parts: Vec<_> = term.split('=').map(str::trim).collect();
        let &[kind, value] = &parts[..] else { return Err(GenericError::Term(term.clone())) };
        if kind.is_empty() || value.is_empty() {
            return Err(GenericError::Term(term.clone()));
        }
        kinds.entry(kind).or_default().push(value);
    }
    let mut all = Vec::new();
    for (kind, values) in kinds {
        match (values.iter().find_map(|v| v.parse::<i64>().ok()), values.len()) {
            (Some(count), 1) if count < 0 => return Err(GenericError::Negative(kind.into())),
            (Some(value), 1) => all.push(GenericResource::Discrete { kind: kind.into(), value }),
            (Some(_), _) => return Err(GenericError::Mixed { kind: kind.into(), values: values.join(" ") }),
            (None, _) => {
                let named = |value: &&str| GenericResource::Named { kind: kind.into(), value: (*value).into() };
                all.extend(values.iter().map(named));
            }
        }
    }
    Ok(all)
}

/// What a task that wants `wanted` gets of a node that has `has`, of which `taken` is given away; `None` where that is not
/// enough. A number of a kind whose things have names gets the first that are free, in the node's order.
pub fn claim(
    has: &[GenericResource],
    taken: &[GenericResource],
    wanted: &[GenericResource],
) -> Option<Vec<GenericResource>> {
    let mut given: Vec<GenericResource> = Vec::new();
    for want in wanted {
        match want {
            GenericResource::Named { .. } => {
                let is_free = has.contains(want) && !taken.contains(want) && !given.contains(want);
                given.push(is_free.then(|| want.clone())?);
            }
            GenericResource::Discrete { value, .. } if *value <= 0 => {}
            GenericResource::Discrete { kind, value } if has.iter().any(|r| r.is_named(kind)) => {
                let count = usize::try_from(*value).ok()?;
                let free = has.iter().filter(|r| r.is_named(kind) && !taken.contains(r) && !given.contains(r));
                let free: Vec<_> = free.take(count).cloned().collect();
                given.extend((free.len() == count).then_some(free)?);
            }
            GenericResource::Discrete { kind, value } => {
                let left = count(has, kind) - count(taken, kind) - count(&given, kind);
                given.push((left >= *value).then(|| want.clone())?);
            }
        }
    }
    Some(given)
}

/// `PREFIX_KIND=VALUE` for each kind of what a task was given, several names with a comma between them.
pub fn environment(prefix: &str, given: &[GenericResource]) -> Vec<String> {
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in given {
        let (kind, value) = match resource {
            GenericResource::Discrete { kind, value } => (kind, value.to_string()),
            GenericResource::Named { kind, value } => (kind, value.clone()),
        };
        kinds.entry(kind.to_uppercase()).or_default().push(value);
    }
    kinds.into_iter().map(|(kind, values)| format!("{prefix}_{kind}={}", values.join(","))).collect()
}

/// For `deserialize_with`: as in Docker, a member that says nothing is passed over, and a name wins over a count.
pub(crate) fn read_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<GenericResource>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Given<V> {
        #[serde(default)]
        kind: String,
        value: Option<V>,
    }
    #[derive(Deserialize)]
    struct Member {
        #[serde(rename = "NamedResourceSpec")]
        named: Option<Given<String>>,
        #[serde(rename = "DiscreteResourceSpec")]
        discrete: Option<Given<i64>>,
    }
    let members = Vec::<Member>::deserialize(deserializer)?;
    let resource = |member: Member| {
        let named = member.named.map(|n| (n.kind, n.value.unwrap_or_default()));
        let discrete = member.discrete.map(|d| (d.kind, d.value.unwrap_or_default()));
        (named.map(|(kind, value)| GenericResource::Named { kind, value }))
            .or_else(|| discrete.map(|(kind, value)| GenericResource::Discrete { kind, value }))
    };
    Ok(members.into_iter().filter_map(resource).collect())
}

fn count(resources: &[GenericResource], of: &str) -> i64 {
    let counts = resources.iter().filter_map(|r| match r {
        GenericResource::Discrete { kind, value } if kind == of => Some(*value),
        _ => None,
    });
    counts.fold(0, i64::saturating_add)
}

impl GenericResource {
    /// What it is.
    pub fn kind(&self) -> &str {
        match self {
            Self::Discrete { kind, .. } | Self::Named { kind, .. } => kind,
        }
    }

    fn is_named(&self, of: &str) -> bool {
        matches!(self, Self::Named { kind, .. } if kind == of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Resources;

    fn node(terms: &[&str]) -> Vec<GenericResource> {
        parse(&terms.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn refused(terms: &[&str]) -> String {
        parse(&terms.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>()).unwrap_err().to_string()
    }

    #[test]
    fn a_kind_is_counted_once_or_its_things_have_names() {
        let all = node(&["gpu=UUID1", "ssd = 3", "gpu=UUID2"]);
        assert_eq!(all, [named("gpu", "UUID1"), named("gpu", "UUID2"), discrete("ssd", 3)]);
        let begin = "could not parse GenericResource: ";
        let missing = "incorrect term foo=a=b, missing '=' or malformed expression";
        assert_eq!(refused(&["foo=a=b"]), format!("{begin}{missing}"));
        assert!(
            refused(&["foo"]).contains("incorrect term foo,") && refused(&["foo="]).contains("incorrect term foo=,")
        );
        assert_eq!(refused(&["foo=-1"]), format!("{begin}cannot ask for negative resource foo"));
        let mixed = "mixed discrete and named resources in expression 'foo=[a 3]'";
        assert_eq!(refused(&["foo=a", "foo=3"]), format!("{begin}{mixed}"));
    }

    fn discrete(kind: &str, value: i64) -> GenericResource {
        GenericResource::Discrete { kind: kind.into(), value }
    }

    fn named(kind: &str, value: &str) -> GenericResource {
        GenericResource::Named { kind: kind.into(), value: value.into() }
    }

    #[test]
    fn a_number_of_named_things_gets_the_first_free_ones() {
        let has = node(&["gpu=c", "gpu=a", "gpu=b", "ssd=3"]);
        let wanted = [discrete("gpu", 2), discrete("ssd", 2)];
        assert_eq!(claim(&has, &[], &wanted), Some(vec![named("gpu", "c"), named("gpu", "a"), discrete("ssd", 2)]));
        assert_eq!(claim(&has, &[named("gpu", "c"), named("gpu", "a")], &wanted), None);
        assert_eq!(claim(&has, &[discrete("ssd", 2)], &wanted), None);
        assert_eq!(
            claim(&has, &[named("gpu", "a")], &[discrete("gpu", 2)]),
            Some(vec![named("gpu", "c"), named("gpu", "b")])
        );
    }

    #[test]
    fn the_same_thing_is_not_given_twice_and_unknown_kinds_not_at_all() {
        let has = node(&["gpu=a", "ssd=3"]);
        assert_eq!(claim(&has, &[], &[discrete("ssd", 2), discrete("ssd", 2)]), None);
        assert_eq!(claim(&has, &[], &[named("gpu", "a"), discrete("gpu", 1)]), None);
        assert_eq!(claim(&has, &[], &[named("gpu", "b")]), None);
        assert_eq!(claim(&has, &[], &[discrete("fpga", 1)]), None);
        assert_eq!(claim(&has, &[], &[named("gpu", "a")]), Some(vec![named("gpu", "a")]));
        assert_eq!(claim(&[], &[], &[discrete("ssd", 0)]), Some(Vec::new()));
    }

    #[test]
    fn containers_learn_what_they_were_given_by_their_environment() {
        let given = [named("gpu", "UUID1"), discrete("ssd", 3), named("gpu", "UUID2")];
        assert_eq!(
            environment("DOCKER_RESOURCE", &given),
            ["DOCKER_RESOURCE_GPU=UUID1,UUID2", "DOCKER_RESOURCE_SSD=3"]
        );
    }

    #[test]
    fn the_json_form_is_dockers_and_empty_members_are_passed_over() {
        let text = r#"{"GenericResources":[{"DiscreteResourceSpec":{"Kind":"ssd","Value":3}},{"NamedResourceSpec":{"Kind":"gpu","Value":"a"}}]}"#;
        let resources: Resources = serde_json::from_str(text).unwrap();
        assert_eq!(resources.generic_resources, [discrete("ssd", 3), named("gpu", "a")]);
        assert_eq!(serde_json::to_string(&resources).unwrap(), text);
        let odd = r#"{"GenericResources":[{},{"NamedResourceSpec":null,"DiscreteResourceSpec":{"Kind":"ssd"}}]}"#;
        let resources: Resources = serde_json::from_str(odd).unwrap();
        assert_eq!(resources.generic_resources, [discrete("ssd", 0)]);
    }
}
