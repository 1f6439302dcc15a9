//! Configs: as secrets, where they differ: they are told, are larger, and lie elsewhere.

use serde_json::{Value, json};

use super::secrets::{encoded, reference, told, typed};
use crate::cx::{Cx, array, text};
use crate::error::Result;
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Swarm, item_008_a_config_is_told),
    case!(Swarm, only_labels_of_a_config_change),
    case!(Swarm, a_config_has_a_size_and_a_name),
    case!(Swarm, a_config_in_use_is_not_removed),
    case!(Swarm, config_references_are_checked),
    case!(Swarm, a_config_is_a_file_as_asked),
    case!(Swarm, a_config_with_a_template_is_expanded, since 1, 37),
    case!(Swarm, configs_tell_with_swarm_scope),
    case!(Swarm, the_client_makes_uses_and_removes_configs),
];

fn with_configs(references: &[Value], replicas: u64) -> Value {
    let container = json!({"Configs": references});
    json!({"TaskTemplate": {"ContainerSpec": container}, "Mode": {"Replicated": {"Replicas": replicas}}})
}

fn item_008_a_config_is_told(cx: &Cx<'_>) -> Result<()> {
    let (id, name) = cx.keep("configs", "conf", b"{\"a\":1}", json!({}))?;
    let told = cx.get(&format!("/configs/{name}"))?.json()?;
    same!((text(&told["ID"]), text(&told["Spec"]["Data"])), (id, encoded(b"{\"a\":1}")), "config");
    same!(told["Spec"]["Labels"], json!({}), "labels");
    let listed = cx.engine.list("/configs", &json!({"name": [name]}))?;
    same!(listed, [told], "list");
    Ok(())
}

fn only_labels_of_a_config_change(cx: &Cx<'_>) -> Result<()> {
    let (id, name) = cx.keep("configs", "conf", b"first", json!({}))?;
    let update = |spec: Value| {
        let version = cx.get(&format!("/configs/{id}"))?.json()?["Version"]["Index"].clone();
        cx.post(&format!("/configs/{id}/update?version={version}"), &spec)
    };
    let second = json!({"Name": name, "Data": encoded(b"second")});
    update(second)?.refused(400, "only updates to Labels are allowed")?;
    update(json!({"Name": name, "Labels": {"a": "b"}}))?.status(200)?;
    let now = cx.get(&format!("/configs/{id}"))?.json()?;
    same!(now["Spec"], json!({"Name": name, "Labels": {"a": "b"}, "Data": encoded(b"first")}), "spec");
    let bad = cx.post(&format!("/configs/{id}/update"), &json!({"Name": name}))?;
    bad.refused(400, "invalid config version").map(drop)
}

fn a_config_has_a_size_and_a_name(cx: &Cx<'_>) -> Result<()> {
    let refusal = "config data must be larger than 0 and less than 1024000 bytes";
    let (most, _) = cx.keep("configs", "most", &[b'x'; 1_023_999], json!({}))?;
    let told = cx.get(&format!("/configs/{most}"))?.json()?;
    same!(text(&told["Spec"]["Data"]).len(), 1_365_332, "length in base64");
    cx.try_keep("configs", "more", &[b'x'; 1_024_000], json!({}))?.refused(400, refusal)?;
    cx.try_keep("configs", "none", b"", json!({}))?.refused(400, refusal)?;
    let (_, name) = cx.keep("configs", "twice", b"x", json!({}))?;
    let again = cx.try_keep("configs", "twice", b"y", json!({}))?;
    again.refused(409, &format!("rpc error: code = AlreadyExists desc = config {name} already exists"))?;
    cx.try_keep("configs", "x", b"x", json!({"Name": "-"}))?.refused(400, "invalid name, only 64").map(drop)
}

fn a_config_in_use_is_not_removed(cx: &Cx<'_>) -> Result<()> {
    let (id, name) = cx.keep("configs", "conf", b"x", json!({}))?;
    let service = cx.service("user", with_configs(&[reference("Config", &id, &name, &json!({}))], 0))?;
    let refusal = format!("config '{name}' is in use by the following service: {}", cx.name("user"));
    cx.delete(&format!("/configs/{id}"))?.refused(400, &refusal)?;
    cx.delete(&format!("/services/{service}"))?.ok()?;
    cx.delete(&format!("/configs/{id}"))?.status(204)?;
    cx.delete(&format!("/configs/{id}"))?.refused(404, &format!("config {id} not found")).map(drop)
}

fn config_references_are_checked(cx: &Cx<'_>) -> Result<()> {
    let (id, name) = cx.keep("configs", "conf", b"x", json!({}))?;
    let good = |file: Value| reference("Config", &id, &name, &file);
    let refused = |references: &[Value], text: &str| {
        cx.try_service("user", with_configs(references, 0))?.refused(400, text).map(drop)
    };
    let bare = json!({"ConfigID": id, "ConfigName": name});
    refused(&[bare], "invalid Config: either File or Runtime should be set")?;
    let mut both = good(json!({}));
    both["Runtime"] = json!({});
    refused(&[both], "invalid Config: cannot specify both File and Runtime")?;
    refused(&[reference("Config", &id, "", &json!({"Name": "x"}))], "malformed config reference")?;
    refused(&[good(json!({"Name": ""}))], "malformed file config reference, invalid target file name provided")?;
    let conflict = format!("config references '{name}' and '{name}' have a conflicting target: '/same'");
    refused(&[good(json!({"Name": "/same"})), good(json!({"Name": "/same"}))], &conflict)?;
    let unknown = |name: &str| reference("Config", &"0".repeat(25), name, &json!({}));
    refused(&[unknown("a")], "config not found: a")?;
    refused(&[unknown("a"), unknown("b")], "configs not found: a, b")
}

fn a_config_is_a_file_as_asked(cx: &Cx<'_>) -> Result<()> {
    let (id, name) = cx.keep("configs", "conf", b"{\"a\":1}", json!({}))?;
    let (two, second) = cx.keep("configs", "second", b"{\"a\":1}", json!({}))?;
    let own = json!({"Name": "/etc/deep/down/app.json", "UID": "405", "GID": "100", "Mode": 0o640});
    let references =
        [reference("Config", &id, &name, &json!({"Name": "conf"})), reference("Config", &two, &second, &own)];
    let service = cx.service("user", with_configs(&references, 1))?;
    same!(cx.in_task(&service, "cat /conf /etc/deep/down/app.json")?, "{\"a\":1}{\"a\":1}", "contents");
    let seen = cx.in_task(&service, "stat -c '%a %u %g' /conf /etc/deep/down/app.json")?;
    same!(seen, "444 0 0\n640 405 100\n", "modes and owners");
    let written = cx.in_task(&service, "! echo x > /conf");
    ensure!(written.is_ok(), "a config can be written: {written:?}");
    Ok(())
}

fn a_config_with_a_template_is_expanded(cx: &Cx<'_>) -> Result<()> {
    let template = b"name={{.Service.Name}} slot={{.Task.Slot}} tier={{index .Service.Labels \"tier\"}}\n";
    let (id, name) = cx.keep("configs", "conf", template, json!({"Templating": {"Name": "golang"}}))?;
    let mut spec = with_configs(&[reference("Config", &id, &name, &json!({"Name": "/conf"}))], 1);
    spec["Labels"] = json!({"tier": "gold"});
    let service = cx.service("user", spec)?;
    let wanted = format!("name={} slot=1 tier=gold\n", cx.name("user"));
    same!(cx.in_task(&service, "cat /conf")?, wanted, "expanded");
    same!(text(&cx.get(&format!("/configs/{id}"))?.json()?["Spec"]["Data"]), encoded(template), "as it is kept");
    Ok(())
}

fn configs_tell_with_swarm_scope(cx: &Cx<'_>) -> Result<()> {
    let mut stream = cx.events(&json!({"type": ["config"], "config": [cx.name("conf")]}))?;
    let (id, name) = cx.keep("configs", "conf", b"x", json!({}))?;
    cx.delete(&format!("/configs/{id}"))?.status(204)?;
    told(&mut stream, &["create", "remove"], &id, &name)
}

fn the_client_makes_uses_and_removes_configs(cx: &Cx<'_>) -> Result<()> {
    let name = cx.name("conf");
    typed(cx, "config", &name, "{\"a\":1}")?;
    let shown: Value = serde_json::from_str(&cx.docker(&["config", "inspect", &name])?.ok()?)?;
    same!(text(&array(&shown)[0]["Spec"]["Data"]), encoded(b"{\"a\":1}"), "config inspect");
    let pretty = cx.docker(&["config", "inspect", "--pretty", &name])?.ok()?;
    ensure!(pretty.contains("{\"a\":1}"), "{pretty}");
    let (service, target) = (cx.name("user"), format!("source={name},target=/etc/conf.json,mode=0440"));
    let create = ["service", "create", "--quiet", "--name", &service, "--stop-signal", "SIGKILL", "--config", &target];
    cx.docker(&[&create[..], &["busybox:latest", "sleep", "1000"]].concat())?.ok()?;
    let seen = cx.in_task(&service, "cat /etc/conf.json && stat -c ' %a' /etc/conf.json")?;
    same!(seen, "{\"a\":1} 440\n", "the config where it was put");
    let used = cx.docker(&["config", "rm", &name])?.ended(1)?;
    ensure!(used.err.contains("is in use by the following service"), "{}", used.err);
    cx.docker(&["service", "update", "--quiet", "--config-rm", &name, "--config-add", &name, &service])?.ok()?;
    same!(cx.in_task(&service, &format!("cat /{name}"))?, "{\"a\":1}", "at its own name");
    cx.docker(&["service", "update", "--quiet", "--config-rm", &name, &service])?.ok()?;
    same!(cx.docker(&["config", "rm", &name])?.ok()?, name, "config rm");
    Ok(())
}
