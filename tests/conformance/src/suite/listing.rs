//! `docker ps`: what is listed, in which order, and how it is picked.

use serde_json::{Value, json};

use crate::cx::{Cx, text};
use crate::error::Result;
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Engine, an_entry_has_the_documented_fields),
    case!(Engine, only_running_containers_are_listed_unless_all_are_wanted),
    case!(Engine, the_newest_comes_first_and_a_limit_counts),
    case!(Engine, filters_by_name_and_id_and_label),
    case!(Engine, filters_by_status_and_exit_code),
    case!(Engine, filters_by_image_and_volume_and_network),
    case!(Engine, filters_by_neighbours_in_time),
];

fn names(cx: &Cx<'_>, path: &str, filters: Value) -> Result<Vec<String>> {
    let all = cx.engine.list(path, &filters)?;
    let prefix = format!("/{}", cx.name(""));
    Ok(all.iter().filter_map(|entry| text(&entry["Names"][0]).strip_prefix(&prefix).map(str::to_owned)).collect())
}

fn an_entry_has_the_documented_fields(cx: &Cx<'_>) -> Result<()> {
    let id = cx.run("c", json!({"Cmd": ["sh", "-c", "sleep 1000"], "Labels": {"a": "b"}}))?;
    let entry = cx.engine.list("/containers/json", &json!({"id": [id]}))?.remove(0);
    let inspected = cx.inspect(&id)?;
    same!(entry["Names"], json!([format!("/{}", cx.name("c"))]), "names");
    same!(
        (text(&entry["Image"]), entry["ImageID"].clone()),
        ("busybox:latest".to_owned(), inspected["Image"].clone()),
        "image"
    );
    same!(entry["Command"], "sh -c 'sleep 1000'", "command");
    same!(entry["State"], "running", "state");
    ensure!(text(&entry["Status"]).starts_with("Up "), "status {}", entry["Status"]);
    same!(entry["Labels"], json!({"a": "b"}), "labels");
    same!(
        entry["HostConfig"]["NetworkMode"].as_str().map(|mode| mode == "default" || mode == "bridge"),
        Some(true),
        "network mode"
    );
    same!(
        entry["NetworkSettings"]["Networks"]["bridge"]["IPAddress"],
        inspected["NetworkSettings"]["Networks"]["bridge"]["IPAddress"],
        "address"
    );
    ensure!(entry["Created"].as_i64() > Some(1_600_000_000), "created {}", entry["Created"]);
    ensure!(entry.get("SizeRw").is_none(), "a size that nobody asked for");
    let sized = cx.engine.list("/containers/json?size=1", &json!({"id": [id]}))?.remove(0);
    ensure!(sized["SizeRootFs"].as_u64() > Some(100_000), "size {}", sized["SizeRootFs"]);
    Ok(())
}

fn only_running_containers_are_listed_unless_all_are_wanted(cx: &Cx<'_>) -> Result<()> {
    cx.sleeper("runs")?;
    cx.create("created", json!({}))?;
    let ended = cx.run("ended", json!({"Cmd": ["sh", "-c", "exit 3"]}))?;
    cx.wait(&ended)?;
    let mine = json!({"name": [cx.name("")]});
    same!(names(cx, "/containers/json", mine.clone())?, ["runs"], "running ones");
    same!(names(cx, "/containers/json?all=1", mine.clone())?, ["ended", "created", "runs"], "all, the newest first");
    let all = cx.engine.list("/containers/json?all=true", &mine)?;
    let status: Vec<String> = all.iter().map(|entry| text(&entry["Status"])).collect();
    ensure!(
        status[0].starts_with("Exited (3) ") && status[0].ends_with(" ago") && status[1] == "Created",
        "{status:?}"
    );
    Ok(())
}

fn the_newest_comes_first_and_a_limit_counts(cx: &Cx<'_>) -> Result<()> {
    for name in ["one", "two", "three"] {
        cx.create(name, json!({}))?;
    }
    let mine = json!({"name": [cx.name("")]});
    same!(names(cx, "/containers/json?all=1", mine.clone())?, ["three", "two", "one"], "order");
    same!(names(cx, "/containers/json?limit=2", mine)?, ["three", "two"], "a limit implies all");
    Ok(())
}

fn filters_by_name_and_id_and_label(cx: &Cx<'_>) -> Result<()> {
    let one = cx.create("one", json!({"Labels": {"tier": "front", "test": cx.name("x")}}))?;
    cx.create("two", json!({"Labels": {"test": cx.name("x")}}))?;
    let list = |filters: Value| names(cx, "/containers/json?all=1", filters);
    same!(list(json!({"name": [cx.name("on")]}))?, ["one"], "by part of the name");
    same!(list(json!({"name": [format!("^/{}$", cx.name("two"))]}))?, ["two"], "by expression");
    same!(list(json!({"name": [cx.name("one"), cx.name("two")]}))?, ["two", "one"], "by either name");
    same!(list(json!({"id": [one[..12].to_owned()]}))?, ["one"], "by part of the id");
    same!(list(json!({"label": [format!("test={}", cx.name("x"))]}))?, ["two", "one"], "by label");
    same!(list(json!({"label": ["tier", format!("test={}", cx.name("x"))]}))?, ["one"], "by both labels");
    same!(
        list(json!({"label": {"tier=front": true}, "name": {cx.name("").as_str(): true}}))?,
        ["one"],
        "the older form of filters"
    );
    Ok(())
}

fn filters_by_status_and_exit_code(cx: &Cx<'_>) -> Result<()> {
    cx.sleeper("runs")?;
    cx.create("created", json!({}))?;
    for (name, code) in [("three", 3), ("zero", 0)] {
        let id = cx.run(name, json!({"Cmd": ["sh", "-c", format!("exit {code}")]}))?;
        cx.wait(&id)?;
    }
    let list = |path: &str, filters: Value| names(cx, path, filters);
    same!(
        list("/containers/json", json!({"status": ["exited"]}))?,
        ["zero", "three"],
        "exited ones, without asking for all"
    );
    same!(list("/containers/json", json!({"status": ["running", "created"]}))?, ["created", "runs"], "either status");
    same!(list("/containers/json?all=1", json!({"exited": ["3"]}))?, ["three"], "by exit code");
    Ok(())
}

fn filters_by_image_and_volume_and_network(cx: &Cx<'_>) -> Result<()> {
    let bind = json!({"Image": "shoal/clock:1.0", "HostConfig": {"Binds": [format!("{}:/data", cx.name("vol"))]}});
    cx.create("clock", bind)?;
    cx.create("plain", json!({"HostConfig": {"NetworkMode": "none"}}))?;
    let list = |filters: Value| names(cx, "/containers/json?all=1", filters);
    same!(list(json!({"ancestor": ["shoal/clock:1.0"]}))?, ["clock"], "by image");
    // the clock's image stands on the same layer
    same!(list(json!({"ancestor": ["busybox"], "name": [cx.name("plain")]}))?, ["plain"], "by image without a tag");
    same!(list(json!({"volume": [cx.name("vol")]}))?, ["clock"], "by volume");
    same!(list(json!({"volume": ["/data"], "name": [cx.name("")]}))?, ["clock"], "by where it is mounted");
    same!(list(json!({"network": ["none"]}))?, ["plain"], "by network");
    Ok(())
}

fn filters_by_neighbours_in_time(cx: &Cx<'_>) -> Result<()> {
    for name in ["one", "two", "three"] {
        cx.create(name, json!({}))?;
    }
    let list = |filters: Value| names(cx, "/containers/json?all=1", filters);
    same!(list(json!({"before": [cx.name("two")]}))?, ["one"], "before the second");
    same!(list(json!({"since": [cx.name("two")]}))?, ["three"], "since the second");
    let answer =
        cx.get(&format!("/containers/json?filters={}", crate::http::encode(r#"{"before":["nosuchcontainer"]}"#)))?;
    ensure!(
        [404, 500].contains(&answer.status) && answer.text().contains("nosuchcontainer"),
        "{} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}
