//! Secrets: what they may be, what is told of them, and the file that a container gets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cx::{Cx, array, text};
use crate::error::{Failure, Result};
use crate::harness::Test;
use crate::http::{Answer, Stream};
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Swarm, item_008_a_secret_is_never_told),
    case!(Swarm, item_009_only_labels_of_a_secret_change),
    case!(Swarm, item_010_a_secret_has_a_size),
    case!(Swarm, item_011_a_secret_in_use_is_not_removed),
    case!(Swarm, item_022_a_secret_is_removed_with_204),
    case!(Swarm, secret_names_have_a_form_and_are_unique),
    case!(Swarm, secrets_are_found_by_id_name_and_prefix_and_listed_by_filters),
    case!(Swarm, secret_references_are_checked),
    case!(Swarm, a_secret_is_a_file_in_memory_as_asked),
    case!(Swarm, a_secret_shows_nowhere_else),
    case!(Swarm, a_secret_survives_a_restart_of_its_container),
    case!(Swarm, a_task_keeps_its_secret_until_an_update_takes_it),
    case!(Swarm, a_secret_with_a_template_is_expanded, since 1, 37),
    case!(Swarm, an_unknown_template_type_fails_the_task, since 1, 37),
    case!(Swarm, secrets_tell_with_swarm_scope),
    case!(Swarm, the_client_makes_lists_and_removes_secrets),
    case!(Swarm, the_client_gives_secrets_to_services_and_takes_them),
];

/// As the API wants contents.
pub fn encoded(data: &[u8]) -> String {
    STANDARD.encode(data)
}

/// A reference of a service to a secret or config (`Secret`, `Config`).
pub fn reference(kind: &str, id: &str, name: &str, file: &Value) -> Value {
    let mut full = json!({"Name": name, "UID": "0", "GID": "0", "Mode": 0o444});
    crate::cx::merge(&mut full, file.clone());
    json!({format!("{kind}ID"): id, format!("{kind}Name"): name, "File": full})
}

/// A service's settings with these secrets.
fn with_secrets(references: &[Value]) -> Value {
    json!({"TaskTemplate": {"ContainerSpec": {"Secrets": references}}})
}

fn idle(references: &[Value]) -> Value {
    let mut spec = with_secrets(references);
    crate::cx::merge(&mut spec, json!({"Mode": {"Replicated": {"Replicas": 0}}}));
    spec
}

impl Cx<'_> {
    /// Asks for a secret or config (`secrets`, `configs`) and returns the engine's answer as it is.
    ///
    /// # Errors
    /// The connection fails.
    pub fn try_keep(&self, kind: &str, suffix: &str, data: &[u8], more: Value) -> Result<Answer> {
        let mut spec = json!({"Name": self.name(suffix), "Data": encoded(data)});
        crate::cx::merge(&mut spec, more);
        self.post(&format!("/{kind}/create"), &spec)
    }

    /// Creates a secret or config; its id and its name.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn keep(&self, kind: &str, suffix: &str, data: &[u8], more: Value) -> Result<(String, String)> {
        let made = self.try_keep(kind, suffix, data, more)?.status(201)?.json()?;
        ensure!(super::services::is_swarm_id(&text(&made["ID"])), "answered {made}");
        Ok((text(&made["ID"]), self.name(suffix)))
    }

    /// What a shell line prints in the container of a service's only running task.
    ///
    /// # Errors
    /// There is none, or the line fails.
    pub fn in_task(&self, service: &str, line: &str) -> Result<String> {
        let task = self.wait_running(service, 1)?.remove(0);
        let container = text(&task["Status"]["ContainerStatus"]["ContainerID"]);
        let (code, output) = self.exec(&container, &["sh", "-c", line], json!({}))?;
        if code == 0 { Ok(output.out) } else { Err(Failure::wrong(format!("`{line}`: {code}, {output:?}"))) }
    }
}

fn item_008_a_secret_is_never_told(cx: &Cx<'_>) -> Result<()> {
    let (id, name) = cx.keep("secrets", "pass", b"s3cr3t", json!({"Labels": {"a": "b"}}))?;
    let told = cx.get(&format!("/secrets/{id}"))?.json()?;
    same!((text(&told["ID"]), &told["Spec"]["Name"]), (id, &json!(name)), "secret");
    ensure!(told["Spec"].get("Data").is_none(), "told {told}");
    ensure!(told["Version"]["Index"].as_u64() > Some(0) && told["CreatedAt"] == told["UpdatedAt"], "{told}");
    let listed = cx.engine.list("/secrets", &json!({"name": [name]}))?;
    ensure!(listed.len() == 1 && listed[0]["Spec"].get("Data").is_none(), "listed {listed:?}");
    same!(listed[0]["Spec"]["Labels"], json!({"a": "b"}), "labels");
    Ok(())
}

fn item_009_only_labels_of_a_secret_change(cx: &Cx<'_>) -> Result<()> {
    let (id, name) = cx.keep("secrets", "pass", b"first", json!({}))?;
    let update = |version: &str, spec: Value| cx.post(&format!("/secrets/{id}/update?version={version}"), &spec);
    let version = || Ok::<_, Failure>(cx.get(&format!("/secrets/{id}"))?.json()?["Version"]["Index"].to_string());
    let only = "only updates to Labels are allowed";
    update(&version()?, json!({"Name": name, "Data": encoded(b"second")}))?.refused(400, only)?;
    update(&version()?, json!({"Name": cx.name("other")}))?.refused(400, only)?;
    let old = version()?;
    update(&old, json!({"Name": name, "Data": encoded(b"first"), "Labels": {"a": "b"}}))?.status(200)?;
    update(&version()?, json!({"Name": name, "Labels": {"c": "d"}}))?.status(200)?;
    same!(cx.get(&format!("/secrets/{id}"))?.json()?["Spec"]["Labels"], json!({"c": "d"}), "labels");
    update(&old, json!({"Name": name}))?.refused(500, "update out of sequence")?;
    update("abc", json!({"Name": name}))?.refused(400, "invalid secret version").map(drop)
}

fn item_010_a_secret_has_a_size(cx: &Cx<'_>) -> Result<()> {
    let refusal = "secret data must be larger than 0 and less than 512000 bytes";
    cx.keep("secrets", "most", &[b'x'; 511_999], json!({}))?;
    cx.try_keep("secrets", "more", &[b'x'; 512_000], json!({}))?.refused(400, refusal)?;
    cx.try_keep("secrets", "none", b"", json!({}))?.refused(400, refusal)?;
    let nameless = cx.try_keep("secrets", "driver", b"", json!({"Driver": {"Name": ""}}))?;
    nameless.refused(400, "secret driver must have a name").map(drop)
}

fn item_011_a_secret_in_use_is_not_removed(cx: &Cx<'_>) -> Result<()> {
    let (id, name) = cx.keep("secrets", "pass", b"x", json!({}))?;
    let service = cx.service("user", idle(&[reference("Secret", &id, &name, &json!({}))]))?;
    let remove = || cx.delete(&format!("/secrets/{name}"));
    remove()?.refused(400, &format!("secret '{name}' is in use by the following service: {}", cx.name("user")))?;
    cx.service("twin", idle(&[reference("Secret", &id, &name, &json!({}))]))?;
    remove()?.refused(400, "is in use by the following services: ")?;
    for service in [service, cx.name("twin")] {
        cx.delete(&format!("/services/{service}"))?.ok()?;
    }
    remove()?.status(204).map(drop)
}

fn item_022_a_secret_is_removed_with_204(cx: &Cx<'_>) -> Result<()> {
    let (id, name) = cx.keep("secrets", "pass", b"x", json!({}))?;
    let answer = cx.delete(&format!("/secrets/{id}"))?.status(204)?;
    same!(answer.text(), "", "body");
    for path in [&id, &name] {
        cx.get(&format!("/secrets/{path}"))?.refused(404, &format!("secret {path} not found"))?;
        cx.delete(&format!("/secrets/{path}"))?.refused(404, "not found")?;
    }
    Ok(())
}

fn secret_names_have_a_form_and_are_unique(cx: &Cx<'_>) -> Result<()> {
    let named = |name: &str| cx.post("/secrets/create", &json!({"Name": name, "Data": encoded(b"x")}));
    named("")?.refused(400, "name must be provided")?;
    let long = "a".repeat(65);
    for name in ["-a", "a_", "a b", "a/b", &long] {
        named(name)?.refused(400, "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end")?;
    }
    let (_, name) = cx.keep("secrets", "pass.x_y", b"x", json!({}))?;
    for name in [name.clone(), name.to_uppercase()] {
        let refusal = format!("rpc error: code = AlreadyExists desc = secret {name} already exists");
        named(&name)?.refused(409, &refusal)?;
    }
    cx.keep("configs", "pass.x_y", b"x", json!({}))?;
    Ok(())
}

fn secrets_are_found_by_id_name_and_prefix_and_listed_by_filters(cx: &Cx<'_>) -> Result<()> {
    let (one, name) = cx.keep("secrets", "One", b"x", json!({"Labels": {"tier": "a"}}))?;
    let (two, _) = cx.keep("secrets", "two", b"x", json!({"Labels": {"tier": "b"}}))?;
    for input in [&one, &name, &one[..12].to_owned()] {
        same!(text(&cx.get(&format!("/secrets/{input}"))?.json()?["ID"]), one, "by {input}");
    }
    let listed = |filters: Value| -> Result<Vec<String>> {
        let found = cx.engine.list("/secrets", &filters)?;
        Ok(found.iter().map(|s| text(&s["ID"])).filter(|id| [&one, &two].contains(&id)).collect())
    };
    let mut both = vec![one.clone(), two.clone()];
    both.sort();
    same!(listed(json!({}))?, both, "all, in the order of identifiers");
    same!(listed(json!({"id": [two]}))?, std::slice::from_ref(&two), "by id");
    same!(listed(json!({"name": [name.to_lowercase()]}))?, std::slice::from_ref(&one), "by name, in any case");
    same!(listed(json!({"names": [name]}))?, std::slice::from_ref(&one), "by whole name");
    same!(listed(json!({"names": [&name[..name.len() - 1]]}))?, Vec::<String>::new(), "by part of a name");
    same!(listed(json!({"label": ["tier=b"]}))?, std::slice::from_ref(&two), "by label");
    let answer = cx.get(&format!("/secrets?filters={}", crate::http::encode(r#"{"foo":["x"]}"#)))?;
    answer.refused(400, "nvalid filter 'foo'").map(drop)
}

fn secret_references_are_checked(cx: &Cx<'_>) -> Result<()> {
    let (id, name) = cx.keep("secrets", "pass", b"x", json!({}))?;
    let good = |file: Value| reference("Secret", &id, &name, &file);
    let refused =
        |references: &[Value], text: &str| cx.try_service("user", idle(references))?.refused(400, text).map(drop);
    refused(&[reference("Secret", "", &name, &json!({}))], "malformed secret reference")?;
    refused(&[json!({"SecretID": id, "SecretName": name})], "malformed secret reference, no target provided")?;
    refused(&[good(json!({"Name": ""}))], "malformed file secret reference, invalid target file name provided")?;
    let conflict = format!("secret references '{name}' and '{name}' have a conflicting target: 'same'");
    refused(&[good(json!({"Name": "same"})), good(json!({"Name": "same"}))], &conflict)?;
    refused(&[reference("Secret", &id, "other", &json!({}))], "secret not found: other")?;
    let unknown = |name: &str| reference("Secret", &"0".repeat(25), name, &json!({}));
    refused(&[unknown("a"), unknown("b")], "secrets not found: a, b")?;
    let service = cx.service("user", idle(&[good(json!({}))]))?;
    let shown = cx.see_service(&service)?["Spec"]["TaskTemplate"]["ContainerSpec"]["Secrets"].clone();
    same!(shown, json!([good(json!({}))]), "the reference as it reads back");
    Ok(())
}

fn a_secret_is_a_file_in_memory_as_asked(cx: &Cx<'_>) -> Result<()> {
    let (id, name) = cx.keep("secrets", "pass", b"s3cr3t\xff\n", json!({}))?;
    let (key, key_name) = cx.keep("secrets", "key", b"s3cr3t\xff\n", json!({}))?;
    let own = json!({"Name": "/etc/own.key", "UID": "405", "GID": "100", "Mode": 0o400});
    let references =
        [reference("Secret", &id, &name, &json!({"Name": "pass"})), reference("Secret", &key, &key_name, &own)];
    let service = cx.service("user", with_secrets(&references))?;
    let sums = cx.in_task(&service, "cmp /run/secrets/pass /etc/own.key && wc -c < /run/secrets/pass")?;
    same!(sums.trim(), "8", "bytes");
    let seen = cx.in_task(&service, "stat -c '%a %u %g' /run/secrets/pass /etc/own.key")?;
    same!(seen, "444 0 0\n400 405 100\n", "modes and owners");
    let mounts = cx.in_task(&service, "mount | grep -E '(/run/secrets/pass|/etc/own.key) type tmpfs \\(ro'")?;
    same!(mounts.lines().count(), 2, "read-only mounts in memory: {mounts}");
    let written = cx.in_task(&service, "! echo x > /run/secrets/pass && ! rm /etc/own.key");
    ensure!(written.is_ok(), "a secret can be changed: {written:?}");
    Ok(())
}

fn a_secret_shows_nowhere_else(cx: &Cx<'_>) -> Result<()> {
    let plain = "never-to-be-seen";
    let (id, name) = cx.keep("secrets", "pass", plain.as_bytes(), json!({}))?;
    let service = cx.service("user", with_secrets(&[reference("Secret", &id, &name, &json!({}))]))?;
    let task = cx.wait_running(&service, 1)?.remove(0);
    let container = cx.inspect(&text(&task["Status"]["ContainerStatus"]["ContainerID"]))?;
    let all = [container, task, cx.see_service(&service)?, cx.get("/info")?.json()?];
    for shown in all {
        let shown = shown.to_string();
        ensure!(!shown.contains(plain) && !shown.contains(&encoded(plain.as_bytes())), "{shown}");
    }
    let printed = cx.in_task(&service, "env; cat /proc/1/environ; cat /proc/mounts")?;
    ensure!(!printed.contains(plain), "{printed}");
    Ok(())
}

fn a_secret_survives_a_restart_of_its_container(cx: &Cx<'_>) -> Result<()> {
    let (id, name) = cx.keep("secrets", "pass", b"s3cr3t", json!({}))?;
    let references = [reference("Secret", &id, &name, &json!({"Name": "pass"}))];
    let service = cx.service("user", with_secrets(&references))?;
    same!(cx.in_task(&service, "cat /run/secrets/pass")?, "s3cr3t", "at first");
    let task = cx.running(&service)?.remove(0);
    let container = text(&task["Status"]["ContainerStatus"]["ContainerID"]);
    // whoever restarts it, or the task that takes its place, has the secret
    cx.act(&format!("/containers/{container}/restart?t=0"))?.status(204)?;
    cx.until("the secret in the only running task", || {
        let seen = cx.in_task(&service, "cat /run/secrets/pass")?;
        same!(seen, "s3cr3t", "after the restart");
        Ok(())
    })
}

fn a_task_keeps_its_secret_until_an_update_takes_it(cx: &Cx<'_>) -> Result<()> {
    let (old, old_name) = cx.keep("secrets", "old", b"old", json!({}))?;
    let (new, new_name) = cx.keep("secrets", "new", b"new", json!({}))?;
    let file = json!({"Name": "pass"});
    let service = cx.service("user", with_secrets(&[reference("Secret", &old, &old_name, &file)]))?;
    same!(cx.in_task(&service, "cat /run/secrets/pass")?, "old", "at first");
    cx.update(&service, with_secrets(&[reference("Secret", &new, &new_name, &file)]))?;
    cx.until("the new secret", || {
        same!(cx.in_task(&service, "cat /run/secrets/pass")?, "new", "after the update");
        Ok(())
    })?;
    cx.delete(&format!("/secrets/{old}"))?.status(204)?;
    cx.update(&service, with_secrets(&[]))?;
    cx.until("no secret", || cx.in_task(&service, "! test -e /run/secrets/pass").map(drop))
}

fn a_secret_with_a_template_is_expanded(cx: &Cx<'_>) -> Result<()> {
    let golang = json!({"Templating": {"Name": "golang"}});
    let template = b"{{secret \"raw\"}}@{{.Service.Name}}.{{.Task.Slot}} {{env \"MODE\"}} {{config \"/conf\"}}";
    let (id, name) = cx.keep("secrets", "url", template, golang.clone())?;
    let (raw, raw_name) = cx.keep("secrets", "raw", b"s3cr3t{{", json!({}))?;
    let (conf, conf_name) = cx.keep("configs", "conf", b"{{.Service.ID}}", json!({}))?;
    let shown = cx.get(&format!("/secrets/{id}"))?.json()?["Spec"]["Templating"].clone();
    same!(shown, golang["Templating"], "templating as it reads back");
    let secrets = [
        reference("Secret", &id, &name, &json!({"Name": "url"})),
        reference("Secret", &raw, &raw_name, &json!({"Name": "raw"})),
    ];
    let mut spec = with_secrets(&secrets);
    let configs = [reference("Config", &conf, &conf_name, &json!({"Name": "/conf"}))];
    let container = json!({"Configs": configs, "Env": ["MODE=fast=1"]});
    crate::cx::merge(&mut spec["TaskTemplate"]["ContainerSpec"], container);
    let service = cx.service("user", spec)?;
    let wanted = format!("s3cr3t{{{{@{}.1 fast=1 {{{{.Service.ID}}}}", cx.name("user"));
    same!(cx.in_task(&service, "cat /run/secrets/url")?, wanted, "expanded");
    Ok(())
}

fn an_unknown_template_type_fails_the_task(cx: &Cx<'_>) -> Result<()> {
    let (id, name) = cx.keep("secrets", "pass", b"x", json!({"Templating": {"Name": "jinja"}}))?;
    let mut spec = with_secrets(&[reference("Secret", &id, &name, &json!({}))]);
    spec["TaskTemplate"]["RestartPolicy"] = json!({"Condition": "none"});
    let service = cx.service("user", spec)?;
    let task = cx.wait_task(&service, "a failed task", |t| t["Status"]["State"] == "failed")?;
    let error = text(&task["Status"]["Err"]);
    let start = "starting container failed: unable to get secret from secret store: ";
    ensure!(error.starts_with(start) && error.contains("unrecognized template type"), "{error}");
    Ok(())
}

fn secrets_tell_with_swarm_scope(cx: &Cx<'_>) -> Result<()> {
    let mut stream = cx.events(&json!({"type": ["secret"], "secret": [cx.name("pass")]}))?;
    let (id, name) = cx.keep("secrets", "pass", b"s3cr3t", json!({}))?;
    let version = cx.get(&format!("/secrets/{id}"))?.json()?["Version"]["Index"].clone();
    let spec = json!({"Name": name, "Labels": {"a": "b"}});
    cx.post(&format!("/secrets/{id}/update?version={version}"), &spec)?.status(200)?;
    cx.delete(&format!("/secrets/{id}"))?.status(204)?;
    told(&mut stream, &["create", "update", "remove"], &id, &name)
}

/// Demands events of swarm scope with these actions, each about the secret or config.
pub fn told(stream: &mut Stream, actions: &[&str], id: &str, name: &str) -> Result<()> {
    for action in actions {
        let line = stream.line()?.ok_or_else(|| Failure::wrong("the stream of events ended"))?;
        let event: Value = serde_json::from_str(&line)?;
        same!((text(&event["Action"]).as_str(), text(&event["scope"]).as_str()), (*action, "swarm"), "event");
        same!(event["Actor"], json!({"ID": id, "Attributes": {"name": name}}), "actor");
    }
    Ok(())
}

/// Has the client make a secret or config (`secret`, `config`) from a file, and list it; its id.
pub fn typed(cx: &Cx<'_>, kind: &str, name: &str, data: &str) -> Result<String> {
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, data)?;
    let made = cx.docker(&[kind, "create", "--label", "a=b", name, &file.to_string_lossy()]);
    std::fs::remove_file(&file)?;
    let id = made?.ok()?;
    ensure!(super::services::is_swarm_id(&id), "printed {id:?}");
    let listed = cx.docker(&[kind, "ls", "--filter", &format!("name={name}"), "--format", "{{.ID}} {{.Name}}"])?;
    same!(listed.ok()?, format!("{id} {name}"), "list");
    Ok(id)
}

fn the_client_makes_lists_and_removes_secrets(cx: &Cx<'_>) -> Result<()> {
    let name = cx.name("pass");
    typed(cx, "secret", &name, "s3cr3t")?;
    let shown: Value = serde_json::from_str(&cx.docker(&["secret", "inspect", &name])?.ok()?)?;
    same!(array(&shown)[0]["Spec"]["Labels"], json!({"a": "b"}), "labels");
    ensure!(!shown.to_string().contains("s3cr3t"), "{shown}");
    let pretty = cx.docker(&["secret", "inspect", "--pretty", &name])?.ok()?;
    ensure!(pretty.contains(&format!("Name:              {name}")), "{pretty}");
    same!(cx.docker(&["secret", "rm", &name])?.ok()?, name, "secret rm");
    let gone = cx.docker(&["secret", "rm", &name])?.ended(1)?;
    ensure!(gone.err.contains(&format!("secret {name} not found")), "{}", gone.err);
    Ok(())
}

fn the_client_gives_secrets_to_services_and_takes_them(cx: &Cx<'_>) -> Result<()> {
    let (_, one) = cx.keep("secrets", "one", b"1", json!({}))?;
    let (_, two) = cx.keep("secrets", "two", b"2", json!({}))?;
    let service = cx.name("user");
    let create = ["service", "create", "--quiet", "--name", &service, "--stop-signal", "SIGKILL", "--secret", &one];
    cx.docker(&[&create[..], &["busybox:latest", "sleep", "1000"]].concat())?.ok()?;
    let here = |name: &str, wanted: &str| {
        same!(cx.in_task(&service, &format!("cat /run/secrets/{name}"))?, wanted, "secret {name}");
        Ok::<_, Failure>(())
    };
    here(&one, "1")?;
    let swap = format!("source={two},target=other,mode=0400,uid=7");
    cx.docker(&["service", "update", "--quiet", "--secret-rm", &one, "--secret-add", &swap, &service])?.ok()?;
    here("other", "2")?;
    let seen = cx.in_task(&service, "stat -c '%a %u' /run/secrets/other && ls /run/secrets")?;
    same!(seen, "400 7\nother\n", "what is there now");
    let unknown =
        cx.docker(&["service", "update", "--detach", "--secret-add", &cx.name("none"), &service])?.ended(1)?;
    ensure!(unknown.err.contains("not found"), "{}", unknown.err);
    Ok(())
}
