//! Secrets and configs: what is told of them, where they arrive, and where they never are.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::Story;
use super::view::{Cluster, SOON};
use crate::client::finish;
use crate::cx::{array, text};
use crate::error::{Failure, Result};
use crate::http::Answer;
use crate::{ensure, same, story};

/// The stories of this part.
pub const STORIES: &[Story] = &[
    story!(Five, item_008_a_secret_is_never_told_and_a_config_is),
    story!(Five, item_009_only_labels_of_a_secret_change),
    story!(Five, item_010_a_secret_has_a_size),
    story!(Five, item_011_what_is_used_is_not_removed),
    story!(Five, secrets_and_configs_arrive_on_every_node_as_asked),
    story!(Five, a_secret_is_on_no_disk),
    story!(Five, a_task_keeps_its_secret_while_its_node_is_alone),
];

/// Standard base64, as the API wants contents.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |chunk: &[u8], at: usize| {
        let bits = chunk.iter().chain([0, 0].iter()).take(3).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        if at > chunk.len() { '=' } else { char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]) }
    };
    bytes.chunks(3).flat_map(|chunk| (0..4).map(move |at| digit(chunk, at)).collect::<Vec<_>>()).collect()
}

impl Cluster<'_> {
    fn try_keep(&self, via: usize, kind: &str, name: &str, bytes: &[u8]) -> Result<Answer> {
        self.call(via, "POST", &format!("/{kind}/create"), Some(&json!({"Name": name, "Data": base64(bytes)})))
    }

    /// Creates a secret or a config; its id.
    fn keep(&self, via: usize, kind: &str, name: &str, bytes: &[u8]) -> Result<String> {
        Ok(text(&self.try_keep(via, kind, name, bytes)?.status(201)?.json()?["ID"]))
    }

    /// Tries to run what uses a secret and a config on every node; the service's id.
    fn using(&self, secret: (&str, &str), config: (&str, &str)) -> Result<String> {
        let file = |name: &str, mode: u32| json!({"Name": name, "UID": "405", "GID": "100", "Mode": mode});
        let cx = self.cx(1);
        let service = cx.service(
            "uses",
            json!({"Mode": {"Global": {}}, "TaskTemplate": {"ContainerSpec": {
            "Secrets": [{"SecretID": secret.0, "SecretName": secret.1, "File": file("pass", 0o440)}],
            "Configs": [{"ConfigID": config.0, "ConfigName": config.1, "File": file("/etc/conf.json", 0o444)}]}}}),
        )?;
        cx.wait_running(&service, self.lab.nodes().count())?;
        Ok(service)
    }

    /// What a shell line prints in this story's container on a node.
    fn in_container(&self, node: usize, line: &str) -> Result<String> {
        let containers = self.containers(node)?;
        let running = containers.iter().find(|container| container["State"] == "running");
        let id = running.map(|container| text(&container["Id"]));
        let id = id.ok_or_else(|| Failure::wrong(format!("no container on node {node}")))?;
        let (code, output) = self.cx(node).exec(&id, &["sh", "-c", line], json!({}))?;
        if code == 0 { Ok(output.out) } else { Err(Failure::wrong(format!("`{line}`: {code}, {output:?}"))) }
    }
}

fn item_008_a_secret_is_never_told_and_a_config_is(cluster: &Cluster<'_>) -> Result<()> {
    let (secret, config) = (cluster.fresh("s"), cluster.fresh("c"));
    let (one, two) =
        (cluster.keep(1, "secrets", &secret, b"s3cr3t")?, cluster.keep(2, "configs", &config, b"{\"a\":1}")?);
    for via in [1, 2, 3] {
        let told = cluster.cx(via).get(&format!("/secrets/{one}"))?.json()?;
        ensure!(told["Spec"].get("Data").is_none_or(Value::is_null), "manager {via} tells {told}");
        same!(told["Spec"]["Name"], secret.as_str(), "name");
        let all = cluster.lab.engine(via).list("/secrets", &json!({"name": [secret]}))?;
        ensure!(all.len() == 1 && all[0]["Spec"].get("Data").is_none_or(Value::is_null), "manager {via}: {all:?}");
        let told = cluster.cx(via).get(&format!("/configs/{config}"))?.json()?;
        same!((text(&told["ID"]), text(&told["Spec"]["Data"])), (two.clone(), base64(b"{\"a\":1}")), "config");
    }
    Ok(())
}

fn item_009_only_labels_of_a_secret_change(cluster: &Cluster<'_>) -> Result<()> {
    for kind in ["secrets", "configs"] {
        let name = cluster.fresh("x");
        let id = cluster.keep(1, kind, &name, b"first")?;
        let update = |via: usize, spec: Value| -> Result<Answer> {
            let now = cluster.cx(via).get(&format!("/{kind}/{id}"))?.json()?;
            let path = format!("/{kind}/{id}/update?version={}", now["Version"]["Index"]);
            cluster.call(via, "POST", &path, Some(&spec))
        };
        let changed = update(2, json!({"Name": name, "Data": base64(b"second")}))?;
        changed.refused(400, "only updates to Labels are allowed")?;
        update(3, json!({"Name": name, "Labels": {"a": "b"}}))?.status(200)?;
        let now = cluster.cx(1).get(&format!("/{kind}/{id}"))?.json()?;
        same!(now["Spec"]["Labels"], json!({"a": "b"}), "labels of {kind}");
    }
    Ok(())
}

fn item_010_a_secret_has_a_size(cluster: &Cluster<'_>) -> Result<()> {
    let most = vec![b'x'; 511_999];
    cluster.keep(1, "secrets", &cluster.fresh("most"), &most)?;
    let more = vec![b'x'; 512_000];
    same!(cluster.try_keep(2, "secrets", &cluster.fresh("more"), &more)?.status, 400, "status for too much");
    same!(cluster.try_keep(3, "secrets", &cluster.fresh("none"), b"")?.status, 400, "status for nothing");
    let name = cluster.fresh("twice");
    cluster.keep(1, "secrets", &name, b"1")?;
    cluster.try_keep(2, "secrets", &name, b"2")?.refused(409, "already exists").map(drop)
}

fn item_011_what_is_used_is_not_removed(cluster: &Cluster<'_>) -> Result<()> {
    let (secret, config) = (cluster.fresh("s"), cluster.fresh("c"));
    let (one, two) = (cluster.keep(1, "secrets", &secret, b"s")?, cluster.keep(1, "configs", &config, b"c")?);
    let service = cluster.using((&one, &secret), (&two, &config))?;
    let user = cluster.cx(1).name("uses");
    for (kind, id) in [("secrets", &one), ("configs", &two)] {
        let path = format!("/{kind}/{id}");
        cluster.cx(3).delete(&path)?.refused(400, &format!("is in use by the following service: {user}"))?;
    }
    cluster.cx(1).delete(&format!("/services/{service}"))?.ok()?;
    for (kind, id) in [("secrets", &one), ("configs", &two)] {
        cluster.cx(2).delete(&format!("/{kind}/{id}"))?.status(204)?;
        same!(cluster.cx(3).get(&format!("/{kind}/{id}"))?.status, 404, "status of one that is gone");
    }
    Ok(())
}

fn secrets_and_configs_arrive_on_every_node_as_asked(cluster: &Cluster<'_>) -> Result<()> {
    let (secret, config) = (cluster.fresh("s"), cluster.fresh("c"));
    let (one, two) =
        (cluster.keep(1, "secrets", &secret, b"s3cr3t")?, cluster.keep(1, "configs", &config, b"{\"a\":1}")?);
    cluster.using((&one, &secret), (&two, &config))?;
    for node in cluster.lab.nodes() {
        same!(cluster.in_container(node, "cat /run/secrets/pass")?, "s3cr3t", "secret on node {node}");
        same!(cluster.in_container(node, "cat /etc/conf.json")?, "{\"a\":1}", "config on node {node}");
        let seen = cluster.in_container(node, "stat -c '%a %u %g' /run/secrets/pass /etc/conf.json")?;
        same!(seen, "440 405 100\n444 405 100\n", "modes and owners on node {node}");
        let mounts = cluster.in_container(node, "grep -E ' (/run/secrets[^ ]*) tmpfs' /proc/mounts | wc -l")?;
        ensure!(mounts.trim() != "0", "the secret is not in memory on node {node}");
    }
    Ok(())
}

/// Files below a directory that contain this text.
fn search(directory: &Path, wanted: &str) -> Result<Vec<String>> {
    let mut grep = Command::new("grep");
    grep.args(["--recursive", "--files-with-matches", "--text", "--fixed-strings", "--devices=skip", wanted])
        .arg(directory);
    Ok(finish(grep, None)?.out.lines().map(str::to_owned).collect())
}

fn a_secret_is_on_no_disk(cluster: &Cluster<'_>) -> Result<()> {
    let plain = "never-on-a-disk-5521";
    let (secret, config) = (cluster.fresh("s"), cluster.fresh("c"));
    let (one, two) =
        (cluster.keep(1, "secrets", &secret, plain.as_bytes())?, cluster.keep(1, "configs", &config, b"c")?);
    let service = cluster.using((&one, &secret), (&two, &config))?;
    let look = |part: &str| -> Result<Vec<String>> {
        let found = cluster.lab.nodes().map(|node| search(&cluster.lab.home(node).join(part), plain));
        Ok(found.collect::<Result<Vec<_>>>()?.concat())
    };
    same!(look("data/swarm")?, Vec::<String>::new(), "in the swarm's state");
    let info = cluster.cx(4).inspect(&text(&cluster.containers(4)?[0]["Id"]))?;
    ensure!(!info.to_string().contains("never-on-a-disk"), "in what inspect tells");
    cluster.cx(1).delete(&format!("/services/{service}"))?.ok()?;
    cluster.until("the tasks are gone", SOON, || {
        let left: usize = cluster.lab.nodes().map(|node| cluster.containers(node).map_or(1, |list| list.len())).sum();
        same!(left, 0, "containers");
        Ok(())
    })?;
    for part in ["data", "run"] {
        same!(look(part)?, Vec::<String>::new(), "left behind");
    }
    Ok(())
}

fn a_task_keeps_its_secret_while_its_node_is_alone(cluster: &Cluster<'_>) -> Result<()> {
    let (secret, config) = (cluster.fresh("s"), cluster.fresh("c"));
    let (one, two) = (cluster.keep(1, "secrets", &secret, b"s3cr3t")?, cluster.keep(1, "configs", &config, b"c")?);
    cluster.using((&one, &secret), (&two, &config))?;
    cluster.lab.act("kill", &[4])?;
    cluster.lab.act("start", &[4])?;
    same!(cluster.in_container(4, "cat /run/secrets/pass")?, "s3cr3t", "after a restart of the daemon");
    cluster.lab.act("cut", &[5])?;
    same!(cluster.in_container(5, "cat /run/secrets/pass")?, "s3cr3t", "on a node that is cut off");
    let running = array(&json!(cluster.containers(5)?)).iter().filter(|one| one["State"] == "running").count();
    same!(running, 1, "containers");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_padded() {
        assert_eq!(
            ["", "f", "fo", "foo", "foobar"].map(|text| base64(text.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYmFy"]
        );
    }
}
