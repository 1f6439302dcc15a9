//! The stream of events.

use serde_json::{Value, json};

use crate::cx::{Cx, text};
use crate::error::{Failure, Result};
use crate::harness::Test;
use crate::http::Stream;
use crate::suite::system::now;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Engine, a_containers_life_is_told_in_order),
    case!(Engine, an_event_has_the_documented_fields),
    case!(Engine, past_events_are_told_between_two_times),
    case!(Engine, exec_and_kill_are_told),
    case!(Engine, an_oom_kill_is_an_event, since 1, 44),
    case!(Engine, volumes_and_images_tell_too),
    case!(Swarm, services_tell_with_swarm_scope),
    case!(Alone, nodes_tell_with_swarm_scope),
    case!(Engine, several_listeners_hear_the_same),
];

fn next(stream: &mut Stream) -> Result<Value> {
    let line = stream.line()?.ok_or_else(|| Failure::wrong("the stream of events ended"))?;
    Ok(serde_json::from_str(&line)?)
}

fn a_containers_life_is_told_in_order(cx: &Cx<'_>) -> Result<()> {
    let mut stream = cx.events(&json!({"container": [cx.name("c")]}))?;
    let id = cx.run("c", json!({"Cmd": ["sh", "-c", "exit 5"]}))?;
    cx.wait(&id)?;
    cx.delete(&format!("/containers/{id}"))?.status(204)?;
    for wanted in ["create", "start", "die", "destroy"] {
        let event = next(&mut stream)?;
        same!(
            (text(&event["Action"]), text(&event["Type"]), text(&event["Actor"]["ID"])),
            (wanted.to_owned(), "container".to_owned(), id.clone()),
            "event"
        );
        if wanted == "die" {
            same!(event["Actor"]["Attributes"]["exitCode"], "5", "exit code");
        }
    }
    Ok(())
}

fn an_event_has_the_documented_fields(cx: &Cx<'_>) -> Result<()> {
    let mut stream = cx.events(&json!({"container": [cx.name("c")], "type": ["container"], "event": ["create"]}))?;
    let id = cx.create("c", json!({"Labels": {"a": "b"}}))?;
    let event = next(&mut stream)?;
    same!(
        (text(&event["status"]), text(&event["id"]), text(&event["from"])),
        ("create".to_owned(), id, "busybox:latest".to_owned()),
        "older fields"
    );
    same!(
        event["Actor"]["Attributes"],
        json!({"image": "busybox:latest", "name": cx.name("c"), "a": "b"}),
        "attributes"
    );
    same!(event["scope"], "local", "scope");
    let (seconds, nanos) = (event["time"].as_i64().unwrap_or_default(), event["timeNano"].as_i64().unwrap_or_default());
    ensure!(seconds > 1_600_000_000 && nanos / 1_000_000_000 == seconds, "times {seconds} and {nanos}");
    Ok(())
}

fn past_events_are_told_between_two_times(cx: &Cx<'_>) -> Result<()> {
    let before = now(cx)?;
    for name in ["one", "two"] {
        cx.create(name, json!({"Labels": {"test": cx.name("x")}}))?;
    }
    let after = now(cx)?;
    cx.create("three", json!({"Labels": {"test": cx.name("x")}}))?;
    let filters =
        crate::http::encode(&json!({"label": [format!("test={}", cx.name("x"))], "event": ["create"]}).to_string());
    let range = format!("since={}&until={}", super::logs::unix_seconds(&before)?, super::logs::unix_seconds(&after)?);
    let told = cx.get(&format!("/events?{range}&filters={filters}"))?.ok()?.text();
    let names: Vec<String> = told
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|event| text(&event["Actor"]["Attributes"]["name"]))
        .collect();
    same!(names, [cx.name("one"), cx.name("two")], "events of the time between");
    Ok(())
}

fn exec_and_kill_are_told(cx: &Cx<'_>) -> Result<()> {
    let mut stream = cx.events(&json!({"container": [cx.name("c")]}))?;
    let id = cx.run("c", json!({"Cmd": ["sleep", "1000"]}))?;
    cx.exec(&id, &["echo", "said"], json!({}))?;
    cx.act(&format!("/containers/{id}/kill"))?.status(204)?;
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != "die") {
        told.push(text(&next(&mut stream)?["Action"]));
    }
    let wanted = ["create", "start", "exec_create: echo said", "exec_start: echo said", "exec_die", "kill", "die"];
    same!(told, wanted, "events");
    Ok(())
}

fn an_oom_kill_is_an_event(cx: &Cx<'_>) -> Result<()> {
    let mut stream = cx.events(&json!({"container": [cx.name("oom")], "event": ["oom"]}))?;
    cx.run(
        "oom",
        json!({"Cmd": ["sh", "-c", "sleep 1; exec tail /dev/zero"], "HostConfig": {"Memory": 16_777_216, "MemorySwap": 16_777_216}}),
    )?;
    same!(next(&mut stream)?["Action"], "oom", "event");
    Ok(())
}

fn volumes_and_images_tell_too(cx: &Cx<'_>) -> Result<()> {
    let mut stream = cx.events(&json!({"volume": [cx.name("v")]}))?;
    cx.post("/volumes/create", &json!({"Name": cx.name("v")}))?.status(201)?;
    cx.delete(&format!("/volumes/{}", cx.name("v")))?.status(204)?;
    for wanted in ["create", "destroy"] {
        let event = next(&mut stream)?;
        same!((text(&event["Type"]), text(&event["Action"])), ("volume".to_owned(), wanted.to_owned()), "event");
    }
    let mut stream = cx.events(&json!({"type": ["image"], "event": ["tag", "untag"], "image": [cx.name("i")]}))?;
    cx.act(&format!("/images/busybox/tag?repo={}&tag=1", cx.name("i")))?.status(201)?;
    same!(next(&mut stream)?["Action"], "tag", "event");
    Ok(())
}

fn services_tell_with_swarm_scope(cx: &Cx<'_>) -> Result<()> {
    let mut stream = cx.events(&json!({"type": ["service"], "service": [cx.name("svc")]}))?;
    let service = cx.service("svc", json!({"Mode": {"Replicated": {"Replicas": 0}}}))?;
    cx.update(&service, json!({"Mode": {"Replicated": {"Replicas": 1}}}))?;
    cx.wait_running(&service, 1)?;
    cx.delete(&format!("/services/{service}"))?.status(200)?;
    let created = next(&mut stream)?;
    same!(
        (text(&created["Action"]), text(&created["scope"]), text(&created["Actor"]["ID"])),
        ("create".to_owned(), "swarm".to_owned(), service),
        "event"
    );
    same!(created["Actor"]["Attributes"]["name"], cx.name("svc"), "name");
    let updated = next(&mut stream)?;
    let attributes = &updated["Actor"]["Attributes"];
    same!(
        (text(&updated["Action"]), text(&attributes["replicas.old"]), text(&attributes["replicas.new"])),
        ("update".to_owned(), "0".to_owned(), "1".to_owned()),
        "event"
    );
    same!(next(&mut stream)?["Action"], "remove", "event");
    Ok(())
}

fn nodes_tell_with_swarm_scope(cx: &Cx<'_>) -> Result<()> {
    let mut stream = cx.events(&json!({"type": ["node"]}))?;
    cx.update_node(json!({"Availability": "pause"}))?;
    cx.update_node(json!({"Availability": "active"}))?;
    for (old, new) in [("active", "pause"), ("pause", "active")] {
        let event = next(&mut stream)?;
        let attributes = &event["Actor"]["Attributes"];
        same!((text(&event["Action"]), text(&event["scope"])), ("update".to_owned(), "swarm".to_owned()), "event");
        same!(
            (text(&attributes["availability.old"]), text(&attributes["availability.new"])),
            (old.to_owned(), new.to_owned()),
            "attributes {attributes}"
        );
    }
    Ok(())
}

fn several_listeners_hear_the_same(cx: &Cx<'_>) -> Result<()> {
    let streams: Result<Vec<Stream>> = (0..10).map(|_| cx.events(&json!({"container": [cx.name("c")]}))).collect();
    let mut streams = streams?;
    // one that never reads
    let lazy = cx.events(&json!({}))?;
    cx.create("c", json!({}))?;
    for stream in &mut streams {
        same!(next(stream)?["Action"], "create", "event");
    }
    drop(lazy);
    Ok(())
}
