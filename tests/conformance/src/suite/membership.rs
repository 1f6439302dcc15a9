//! Being in a swarm and not: init, join tokens, leave, and what is refused outside.

use serde_json::json;

use super::services::is_swarm_id;
use crate::cx::{Cx, text};
use crate::error::Result;
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Outside, item_015_a_node_outside_refuses_every_swarm_call_with_503),
    case!(Outside, item_016_a_second_init_is_refused),
    case!(Outside, item_021_ping_and_info_tell_the_swarm_state),
    case!(Outside, init_answers_with_the_node_id_and_everything_works_at_once),
    case!(Outside, init_refuses_bad_addresses),
    case!(Outside, item_065_a_manager_leaves_only_with_force),
    case!(Outside, leaving_removes_the_tasks_containers_and_no_others),
    case!(Outside, a_new_swarm_knows_nothing_of_the_old_one),
    case!(Alone, item_061_rotating_a_token_changes_only_its_last_part),
    case!(Alone, swarm_update_keeps_and_changes_what_it_says),
    case!(Alone, swarm_update_refuses_a_bad_version),
    case!(Alone, history_limit_of_the_swarm_is_obeyed),
];

const HINT: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

fn item_015_a_node_outside_refuses_every_swarm_call_with_503(cx: &Cx<'_>) -> Result<()> {
    for path in [
        "/swarm",
        "/nodes",
        "/services",
        "/tasks",
        "/nodes/x",
        "/services/x",
        "/tasks/x",
        "/services/x/logs?stdout=1",
        "/swarm/unlockkey",
    ] {
        cx.get(path)?.refused(503, HINT)?;
    }
    let service = json!({"Name": "x", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}});
    cx.post("/services/create", &service)?.refused(503, HINT)?;
    cx.post("/services/x/update?version=1", &service)?.refused(503, HINT)?;
    cx.post("/nodes/x/update?version=1", &json!({"Role": "manager", "Availability": "active"}))?.refused(503, HINT)?;
    cx.post("/swarm/update?version=1", &json!({}))?.refused(503, HINT)?;
    cx.delete("/services/x")?.refused(503, HINT)?;
    cx.delete("/nodes/x")?.refused(503, HINT)?;
    cx.act("/swarm/leave")?.refused(503, "This node is not part of a swarm").map(drop)
}

fn item_016_a_second_init_is_refused(cx: &Cx<'_>) -> Result<()> {
    cx.engine.swarm_init()?;
    let again = cx.post("/swarm/init", &json!({"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1:2377"}))?;
    again.refused(
        503,
        "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
    )?;
    let join = json!({"ListenAddr": "127.0.0.1:2377", "RemoteAddrs": ["127.0.0.1:1"], "JoinToken": "x"});
    cx.post("/swarm/join", &join)?.refused(503, "This node is already part of a swarm").map(drop)
}

fn item_021_ping_and_info_tell_the_swarm_state(cx: &Cx<'_>) -> Result<()> {
    let ping_has_header = cx.engine.api >= crate::client::Api(1, 42);
    let header = || -> Result<Option<String>> { Ok(cx.get("/_ping")?.header("Swarm").map(str::to_owned)) };
    let swarm = cx.get("/info")?.json()?["Swarm"].clone();
    same!(swarm["LocalNodeState"], "inactive", "state outside");
    same!(swarm["ControlAvailable"], false, "control outside");
    same!(swarm["NodeID"], "", "node id outside");
    if ping_has_header {
        same!(header()?.as_deref(), Some("inactive"), "header outside");
    }
    let node = cx.engine.swarm_init()?;
    let swarm = cx.get("/info")?.json()?["Swarm"].clone();
    same!(swarm["LocalNodeState"], "active", "state inside");
    same!(swarm["ControlAvailable"], true, "control inside");
    same!(swarm["NodeID"], node, "node id inside");
    same!(swarm["NodeAddr"], "127.0.0.1", "address");
    same!(swarm["Nodes"], 1, "nodes");
    same!(swarm["Managers"], 1, "managers");
    same!(swarm["Error"], "", "error");
    ensure!(
        swarm["Cluster"]["ID"].is_string() && swarm["Cluster"].get("JoinTokens").is_none(),
        "cluster: {}",
        swarm["Cluster"]
    );
    same!(swarm["RemoteManagers"], json!([{"NodeID": node, "Addr": "127.0.0.1:2377"}]), "managers");
    if ping_has_header {
        same!(header()?.as_deref(), Some("active/manager"), "header inside");
    }
    Ok(())
}

fn init_answers_with_the_node_id_and_everything_works_at_once(cx: &Cx<'_>) -> Result<()> {
    let id = cx.engine.swarm_init()?;
    ensure!(is_swarm_id(&id), "node id {id:?}");
    let node = cx.get(&format!("/nodes/{id}"))?.json()?;
    same!(node["ManagerStatus"]["Addr"], "127.0.0.1:2377", "manager address");
    same!(node["ManagerStatus"]["Leader"], true, "leader");
    same!(node["ManagerStatus"]["Reachability"], "reachable", "reachability");
    same!(node["Spec"]["Role"], "manager", "role");
    same!(node["Spec"]["Availability"], "active", "availability");
    let swarm = cx.get("/swarm")?.json()?;
    ensure!(is_swarm_id(&text(&swarm["ID"])) && swarm["ID"] != id.as_str(), "swarm id {}", swarm["ID"]);
    for role in ["Worker", "Manager"] {
        let token = text(&swarm["JoinTokens"][role]);
        let parts: Vec<&str> = token.split('-').collect();
        same!(
            (parts.len(), parts[0], parts[1], parts[2].len(), parts[3].len()),
            (4, "SWMTKN", "1", 50, 25),
            "form of {token}"
        );
    }
    let spec = &swarm["Spec"];
    same!(spec["Name"], "default", "name");
    same!(spec["Orchestration"]["TaskHistoryRetentionLimit"], 5, "history limit");
    same!(spec["Dispatcher"]["HeartbeatPeriod"], 5_000_000_000_u64, "heartbeat");
    same!(spec["CAConfig"]["NodeCertExpiry"], 7_776_000_000_000_000_u64, "certificate validity");
    same!(spec["EncryptionConfig"]["AutoLockManagers"], false, "autolock");
    let raft = json!({"SnapshotInterval": 10000, "KeepOldSnapshots": 0, "LogEntriesForSlowFollowers": 500, "ElectionTick": 10, "HeartbeatTick": 1});
    same!(spec["Raft"], raft, "raft");
    same!(swarm["RootRotationInProgress"], false, "rotation");
    same!(swarm["DefaultAddrPool"], json!(["10.0.0.0/8"]), "pool");
    same!(swarm["SubnetSize"], 24, "subnet size");
    same!(swarm["DataPathPort"], 4789, "data path port");
    ensure!(text(&swarm["TLSInfo"]["TrustRoot"]).contains("BEGIN CERTIFICATE"), "trust root {}", swarm["TLSInfo"]);
    cx.service("first", json!({"Mode": {"Replicated": {"Replicas": 0}}})).map(drop)
}

fn init_refuses_bad_addresses(cx: &Cx<'_>) -> Result<()> {
    let listen = json!({"ListenAddr": "nosuchplace:2377", "AdvertiseAddr": "127.0.0.1"});
    cx.post("/swarm/init", &listen)?
        .refused(400, "listen address must be an IP address or network interface (with optional port number)")?;
    let advertise = json!({"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "0.0.0.0"});
    cx.post("/swarm/init", &advertise)?.refused(
        400,
        "advertise address must be a non-zero IP address or network interface (with optional port number)",
    )?;
    same!(cx.engine.in_swarm()?, false, "in a swarm after refused inits");
    Ok(())
}

fn item_065_a_manager_leaves_only_with_force(cx: &Cx<'_>) -> Result<()> {
    cx.engine.swarm_init()?;
    let refused = cx.act("/swarm/leave")?.refused(503, "Use `--force` to ignore this message.")?;
    ensure!(refused.text().contains("last manager"), "{}", refused.text());
    same!(cx.engine.in_swarm()?, true, "in the swarm after the refusal");
    cx.engine.swarm_leave()?;
    same!(cx.engine.in_swarm()?, false, "in the swarm after leaving");
    Ok(())
}

fn leaving_removes_the_tasks_containers_and_no_others(cx: &Cx<'_>) -> Result<()> {
    cx.engine.swarm_init()?;
    let mine = cx.sleeper("mine")?;
    let service = cx.service("svc", json!({"Mode": {"Replicated": {"Replicas": 2}}}))?;
    cx.wait_running(&service, 2)?;
    cx.engine.swarm_leave()?;
    let left = cx
        .engine
        .list("/containers/json?all=1", &json!({"label": [format!("com.docker.swarm.service.id={service}")]}))?;
    same!(left.len(), 0, "the tasks' containers");
    same!(cx.inspect(&mine)?["State"]["Running"], true, "the other container runs");
    Ok(())
}

fn a_new_swarm_knows_nothing_of_the_old_one(cx: &Cx<'_>) -> Result<()> {
    let first = cx.engine.swarm_init()?;
    let old = cx.get("/swarm")?.json()?;
    cx.service("svc", json!({"Mode": {"Replicated": {"Replicas": 0}}}))?;
    cx.engine.swarm_leave()?;
    let second = cx.engine.swarm_init()?;
    let new = cx.get("/swarm")?.json()?;
    ensure!(
        first != second && old["ID"] != new["ID"] && old["JoinTokens"] != new["JoinTokens"],
        "ids or tokens came back"
    );
    same!(cx.engine.list("/services", &json!({}))?.len(), 0, "services");
    same!(cx.engine.list("/nodes", &json!({}))?.len(), 1, "nodes");
    Ok(())
}

fn item_061_rotating_a_token_changes_only_its_last_part(cx: &Cx<'_>) -> Result<()> {
    let old = cx.get("/swarm")?.json()?;
    let path = format!("/swarm/update?version={}&rotateWorkerToken=true", old["Version"]["Index"]);
    cx.post(&path, &old["Spec"])?.status(200)?;
    let new = cx.get("/swarm")?.json()?;
    same!(new["JoinTokens"]["Manager"], old["JoinTokens"]["Manager"], "the manager's token");
    let (before, after) = (text(&old["JoinTokens"]["Worker"]), text(&new["JoinTokens"]["Worker"]));
    ensure!(before != after, "the worker's token did not change");
    same!(
        before.rsplit_once('-').map(|parts| parts.0),
        after.rsplit_once('-').map(|parts| parts.0),
        "all but the last part"
    );
    Ok(())
}

fn swarm_update_keeps_and_changes_what_it_says(cx: &Cx<'_>) -> Result<()> {
    let old = cx.get("/swarm")?.json()?;
    let mut spec = old["Spec"].clone();
    spec["Orchestration"]["TaskHistoryRetentionLimit"] = json!(7);
    spec["Labels"] = json!({"a": "b"});
    cx.post(&format!("/swarm/update?version={}", old["Version"]["Index"]), &spec)?.status(200)?;
    let new = cx.get("/swarm")?.json()?;
    same!(new["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"], 7, "history limit");
    same!(new["Spec"]["Labels"], json!({"a": "b"}), "labels");
    same!(new["JoinTokens"], old["JoinTokens"], "tokens");
    cx.post(&format!("/swarm/update?version={}", new["Version"]["Index"]), &old["Spec"])?.status(200)?;
    same!(cx.get("/swarm")?.json()?["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"], 5, "history limit set back");
    Ok(())
}

fn swarm_update_refuses_a_bad_version(cx: &Cx<'_>) -> Result<()> {
    let swarm = cx.get("/swarm")?.json()?;
    let index = swarm["Version"]["Index"].as_u64().unwrap_or_default();
    cx.post("/swarm/update?version=abc", &swarm["Spec"])?.refused(400, "invalid swarm version 'abc'")?;
    cx.post(&format!("/swarm/update?version={}", index - 1), &swarm["Spec"])?.refused(500, "update out of sequence")?;
    let mut named = swarm["Spec"].clone();
    named["Name"] = json!("other");
    cx.post(&format!("/swarm/update?version={index}"), &named)?
        .refused(400, "swarm spec must be named \"default\"")
        .map(drop)
}

fn history_limit_of_the_swarm_is_obeyed(cx: &Cx<'_>) -> Result<()> {
    let set = |limit: i64| -> Result<()> {
        let swarm = cx.get("/swarm")?.json()?;
        let mut spec = swarm["Spec"].clone();
        spec["Orchestration"]["TaskHistoryRetentionLimit"] = json!(limit);
        cx.post(&format!("/swarm/update?version={}", swarm["Version"]["Index"]), &spec)?.status(200).map(drop)
    };
    set(2)?;
    let service = cx.service("svc", json!({}))?;
    for force in 1..=4 {
        cx.wait_running(&service, 1)?;
        let before = super::services::ids(&cx.running(&service)?);
        cx.update(
            &service,
            json!({"TaskTemplate": {"ForceUpdate": force}, "UpdateConfig": {"Parallelism": 1, "Monitor": 1_000_000}}),
        )?;
        cx.until("another task runs", || {
            let running = super::services::ids(&cx.running(&service)?);
            ensure!(running.len() == 1 && running != before, "{}", cx.states(&service)?);
            Ok(())
        })?;
    }
    let kept = cx.until("no more than two task records", || {
        let tasks = cx.tasks(&service)?;
        ensure!(tasks.len() <= 2, "{} records", tasks.len());
        Ok(tasks)
    });
    set(5)?;
    same!(kept?.len(), 2, "records");
    Ok(())
}
