//! `cargo xtask deps`: dependencies point one way. The map of layers is the only place that says which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use conformance::error::{Failure, Result};
use serde_json::Value;

use crate::shell::{cargo, root};

/// What a crate may know of the others; a layer knows those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    /// The vocabulary.
    Types,
    /// Pure; on the vocabulary only, never on each other.
    Core,
    /// Where disk, kernel and network are.
    Adapter,
    /// What the daemon is made of.
    Service,
    /// The wiring.
    Binary,
}

const LAYERS: &[(Layer, &[&str])] = &[
    (Layer::Types, &["types"]),
    (Layer::Core, &["store", "plan", "schedule", "allocate", "lifecycle", "rules"]),
    (Layer::Adapter, &["ambient", "wire", "raft", "runtime", "image", "network", "bundle", "engine"]),
    (Layer::Service, &["manager", "agent", "node", "api", "cli", "lab"]),
    (Layer::Binary, &["shoal", "sim"]),
];

/// Pairs of which the first must not lead to the second, not even by way of others.
const APART: &[(&str, &str)] = &[("manager", "agent"), ("agent", "manager"), ("cli", "engine"), ("manager", "engine")];
/// Pairs of which the first must not name the second.
const NOT_DIRECTLY: &[(&str, &str)] = &[("api", "agent"), ("api", "raft"), ("api", "store")];

/// Short names of our crates, each with those that it needs to be built.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Checks every crate of the workspace.
///
/// # Errors
/// Something is in the wrong place; everything that is gets listed.
pub fn check() -> Result<()> {
    let output = cargo(&["metadata", "--format-version", "1", "--no-deps"]).output()?;
    if !output.status.success() {
        return Err(Failure::wrong(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages: Vec<&Value> = metadata["packages"].as_array().into_iter().flatten().collect();
    let mut wrong = wrong_directions(&graph(&packages));
    for package in &packages {
        wrong.extend(not_inherited(package)?);
    }
    if wrong.is_empty() {
        println!("{} packages, every dependency points the right way", packages.len());
        return Ok(());
    }
    Err(Failure::wrong(format!("dependencies:\n  {}", wrong.join("\n  "))))
}

/// The crates under `crates/` by their directory's name; dev-dependencies are left out.
fn graph(packages: &[&Value]) -> Graph {
    let short = |name: &str| name.strip_prefix("shoal-").unwrap_or(name).to_owned();
    let mut graph = Graph::new();
    for package in packages {
        let needs = package["dependencies"].as_array().into_iter().flatten();
        let needs = needs.filter(|need| need["kind"] != "dev" && need["path"].is_string());
        let needs = needs.filter_map(|need| need["name"].as_str()).map(short);
        graph.insert(short(package["name"].as_str().unwrap_or_default()), needs.collect());
    }
    graph
}

fn layer(name: &str) -> Option<Layer> {
    LAYERS.iter().find(|(_, names)| names.contains(&name)).map(|(layer, _)| *layer)
}

fn wrong_directions(graph: &Graph) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, needs) in graph {
        let Some(own) = layer(name) else {
            // tests and tasks: whoever knows nothing of Shoal cannot depend on how it works
            wrong.extend(
                needs
                    .iter()
                    .filter(|need| layer(need).is_some())
                    .map(|need| format!("{name} is outside the house and needs {need}")),
            );
            continue;
        };
        for need in needs {
            let fine = match (own, layer(need)) {
                (_, None) => false,
                (Layer::Core, Some(other)) => other == Layer::Types,
                (_, Some(other)) => other <= own,
            };
            if !fine {
                wrong.push(format!("{name} ({own:?}) needs {need} ({:?})", layer(need)));
            }
            if NOT_DIRECTLY.contains(&(name, need)) {
                wrong.push(format!("{name} must not name {need}"));
            }
        }
        for (_, far) in APART.iter().filter(|(near, _)| near == name) {
            if reaches(graph, name, far) {
                wrong.push(format!("{name} must not lead to {far}"));
            }
        }
    }
    wrong
}

fn reaches(graph: &Graph, from: &str, to: &str) -> bool {
    graph.get(from).is_some_and(|needs| needs.iter().any(|need| need == to || reaches(graph, need, to)))
}

/// What a package's manifest says itself although the workspace says it.
fn not_inherited(package: &Value) -> Result<Vec<String>> {
    let path = package["manifest_path"].as_str().unwrap_or_default();
    let manifest = fs::read_to_string(path)?;
    let shown = path.strip_prefix(&format!("{}/", root().display())).unwrap_or(path);
    let mut section = "";
    let (mut wrong, mut lints) = (Vec::new(), false);
    for line in manifest.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]") && line.contains('=') && !line.contains("workspace = true") {
            wrong.push(format!("{shown}: `{line}` is not inherited from the workspace"));
        } else if section == "[lints]" && line == "workspace = true" {
            lints = true;
        }
    }
    if !lints {
        wrong.push(format!("{shown}: does not inherit the workspace's lints"));
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph_of(edges: &[(&str, &[&str])]) -> Graph {
        edges
            .iter()
            .map(|(name, needs)| ((*name).to_owned(), needs.iter().map(|need| (*need).to_owned()).collect()))
            .collect()
    }

    #[test]
    fn the_house_as_drawn_is_fine() {
        let fine = graph_of(&[
            ("plan", &["types"]),
            ("engine", &["types", "image"]),
            ("node", &["manager", "agent"]),
            ("agent", &["engine"]),
        ]);
        assert_eq!(wrong_directions(&fine), Vec::<String>::new());
    }

    #[test]
    fn what_points_the_wrong_way_is_named() {
        for (edges, wanted) in [
            (&[("plan", &["store"][..])][..], "plan (Core) needs store"),
            (&[("engine", &["manager"])], "engine (Adapter) needs manager"),
            (&[("manager", &["wire"]), ("wire", &["agent"])], "manager must not lead to agent"),
            (&[("api", &["agent"])], "api must not name agent"),
            (&[("conformance", &["types"])], "conformance is outside"),
        ] {
            let wrong = wrong_directions(&graph_of(edges)).join("; ");
            assert!(wrong.contains(wanted), "{wanted}: {wrong}");
        }
    }
}
