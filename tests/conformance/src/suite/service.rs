//! Services as objects: ids, names, versions, lookup, what is refused, what comes back.

use serde_json::{Value, json};

use super::services::is_swarm_id;
use crate::cx::{Cx, array, text};
use crate::error::{Failure, Result};
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Swarm, item_001_ids_are_25_lower_case_base_36_digits),
    case!(Swarm, item_002_a_full_id_beats_a_name_and_a_prefix_must_be_unique),
    case!(Swarm, item_003_names_are_unique_whatever_their_case),
    case!(Swarm, item_004_a_name_is_one_dns_label),
    case!(Swarm, an_empty_name_becomes_two_random_words),
    case!(Swarm, item_005_the_second_update_with_one_version_is_out_of_sequence),
    case!(Swarm, item_006_a_version_must_be_a_number),
    case!(Swarm, item_007_objects_of_one_transaction_share_a_version),
    case!(Swarm, item_017_an_unknown_filter_is_named),
    case!(Swarm, item_018_only_a_list_with_status_has_service_status),
    case!(Swarm, item_019_neither_name_nor_mode_can_change),
    case!(Swarm, item_020_there_may_be_nothing_to_roll_back_to),
    case!(Swarm, item_022_removing_a_service_answers_200),
    case!(Swarm, the_smallest_spec_comes_back_as_documented),
    case!(Swarm, insert_defaults_fills_only_what_is_missing),
    case!(Swarm, list_filters_select),
    case!(Swarm, an_unknown_service_or_task_or_node_is_404),
    case!(Swarm, impossible_specs_are_refused_with_dockers_texts),
    case!(Swarm, enumerations_are_checked),
    case!(Swarm, bad_constraints_are_refused),
];

const NONE: &str = r#"{"Mode": {"Replicated": {"Replicas": 0}}}"#;

fn none() -> Value {
    serde_json::from_str(NONE).unwrap_or_default()
}

fn item_001_ids_are_25_lower_case_base_36_digits(cx: &Cx<'_>) -> Result<()> {
    let service = cx.service("svc", json!({}))?;
    let task = cx.wait_running(&service, 1)?.remove(0);
    let swarm = cx.get("/swarm")?.json()?;
    for (what, id) in [
        ("service", service),
        ("task", text(&task["ID"])),
        ("node", text(&task["NodeID"])),
        ("swarm", text(&swarm["ID"])),
    ] {
        ensure!(is_swarm_id(&id), "{what} id {id:?}");
    }
    Ok(())
}

fn item_002_a_full_id_beats_a_name_and_a_prefix_must_be_unique(cx: &Cx<'_>) -> Result<()> {
    let first = cx.service("first", none())?;
    let mut named = json!({"Name": first});
    crate::cx::merge(&mut named, none());
    let second = text(&cx.try_service("second", named)?.status(201)?.json()?["ID"]);
    let found = cx.see_service(&first)?;
    let by_prefix = cx.see_service(&first[..15])?;
    // the second one does not bear this test's prefix
    cx.delete(&format!("/services/{second}"))?.status(200)?;
    same!(found["ID"], first, "found by an id that is also a name");
    same!(by_prefix["ID"], first, "found by prefix");
    let mut ids = vec![first];
    // 36 first digits: two of 37 ids share one
    for number in 0..37 {
        let id = cx.service(&format!("n{number}"), none())?;
        let prefix = &id[..1];
        if ids.iter().any(|have| have.starts_with(prefix)) {
            let refused =
                cx.get(&format!("/services/{prefix}"))?.refused(400, &format!("service {prefix} is ambiguous"))?;
            ensure!(refused.text().contains("matches found"), "{}", refused.text());
            return Ok(());
        }
        ids.push(id);
    }
    Err(Failure::wrong("38 ids without two of one first digit"))
}

fn item_003_names_are_unique_whatever_their_case(cx: &Cx<'_>) -> Result<()> {
    cx.service("web", none())?;
    let wanted = "name conflicts with an existing object";
    cx.try_service("web", none())?.refused(409, wanted)?;
    cx.try_service("Web", none())?.refused(409, wanted).map(drop)
}

fn item_004_a_name_is_one_dns_label(cx: &Cx<'_>) -> Result<()> {
    for bad in ["a.b", "a b", "-a", "a-", "ä", "a/b", "a_"] {
        cx.try_service("x", json!({"Name": bad}))?.refused(400, "name must be valid as a DNS name component")?;
    }
    cx.try_service("x", json!({"Name": "a".repeat(64)}))?.refused(400, "name must be 63 characters or fewer").map(drop)
}

fn an_empty_name_becomes_two_random_words(cx: &Cx<'_>) -> Result<()> {
    let mut spec = json!({"Name": ""});
    crate::cx::merge(&mut spec, none());
    let id = text(&cx.try_service("x", spec)?.status(201)?.json()?["ID"]);
    let name = text(&cx.see_service(&id)?["Spec"]["Name"]);
    cx.delete(&format!("/services/{id}"))?.status(200)?;
    let words: Vec<&str> = name.split('_').collect();
    ensure!(words.len() == 2 && words.iter().all(|word| !word.is_empty()), "name {name:?}");
    Ok(())
}

fn item_005_the_second_update_with_one_version_is_out_of_sequence(cx: &Cx<'_>) -> Result<()> {
    let id = cx.service("svc", none())?;
    let service = cx.see_service(&id)?;
    let path = format!("/services/{id}/update?version={}", service["Version"]["Index"]);
    cx.post(&path, &service["Spec"])?.status(200)?;
    cx.post(&path, &service["Spec"])?.refused(500, "update out of sequence")?;
    let after = cx.see_service(&id)?;
    ensure!(after["Version"]["Index"].as_u64() > service["Version"]["Index"].as_u64(), "the version did not grow");
    ensure!(text(&after["UpdatedAt"]) > text(&service["UpdatedAt"]), "UpdatedAt did not move");
    same!(after["CreatedAt"], service["CreatedAt"], "CreatedAt");
    Ok(())
}

fn item_006_a_version_must_be_a_number(cx: &Cx<'_>) -> Result<()> {
    let id = cx.service("svc", none())?;
    let spec = cx.see_service(&id)?["Spec"].clone();
    cx.post(&format!("/services/{id}/update?version=abc"), &spec)?.refused(400, "invalid service version 'abc': ")?;
    cx.post(&format!("/services/{id}/update"), &spec)?.refused(400, "invalid service version '': ")?;
    cx.post(&format!("/nodes/{}/update?version=abc", cx.node_id()?), &json!({}))?
        .refused(400, "invalid node version 'abc': ")
        .map(drop)
}

fn item_007_objects_of_one_transaction_share_a_version(cx: &Cx<'_>) -> Result<()> {
    let one = cx.service("one", none())?;
    let two = cx.service("two", none())?;
    ensure!(cx.see_service(&one)?["Version"] != cx.see_service(&two)?["Version"], "two services share a version");
    let nowhere = json!({"TaskTemplate": {"Placement": {"Constraints": ["node.labels.nowhere==x"]}}, "Mode": {"Replicated": {"Replicas": 4}}});
    let service = cx.service("nowhere", nowhere)?;
    cx.until("four tasks that were written as one", || {
        let tasks = cx.tasks(&service)?;
        let pending = tasks.iter().filter(|task| !text(&task["Status"]["Err"]).is_empty()).count();
        ensure!(pending == 4, "{pending} say why they wait");
        ensure!(tasks.iter().all(|task| task["Version"] == tasks[0]["Version"]), "versions differ");
        Ok(())
    })
}

fn item_017_an_unknown_filter_is_named(cx: &Cx<'_>) -> Result<()> {
    for path in ["/services", "/tasks", "/nodes"] {
        let query = crate::http::encode(r#"{"foo":["x"]}"#);
        let answer = cx.get(&format!("{path}?filters={query}"))?.status(400)?;
        ensure!(answer.text().to_lowercase().contains("invalid filter 'foo'"), "{}", answer.text());
        let answer = cx.get(&format!("{path}?filters=%7Bbroken"))?;
        ensure!(
            (400..=500).contains(&answer.status) && answer.text().contains("message"),
            "{}: {}",
            answer.status,
            answer.text()
        );
    }
    let bad = crate::http::encode(r#"{"desired-state":["x"]}"#);
    cx.get(&format!("/tasks?filters={bad}"))?.refused(500, "nvalid desired-state filter: 'x'")?;
    cx.get(&format!("/nodes?filters={}", crate::http::encode(r#"{"role":["x"]}"#)))?
        .refused(500, "nvalid role filter: 'x'")
        .map(drop)
}

fn item_018_only_a_list_with_status_has_service_status(cx: &Cx<'_>) -> Result<()> {
    let id = cx.service("svc", json!({"Mode": {"Replicated": {"Replicas": 2}}}))?;
    cx.wait_running(&id, 2)?;
    let filters = json!({"id": [id]});
    let with = cx.engine.list("/services?status=true", &filters)?;
    same!(with[0]["ServiceStatus"]["RunningTasks"], 2, "running");
    same!(with[0]["ServiceStatus"]["DesiredTasks"], 2, "desired");
    ensure!(cx.engine.list("/services", &filters)?[0].get("ServiceStatus").is_none(), "a list without status has it");
    ensure!(
        cx.get(&format!("/services/{id}?status=true"))?.json()?.get("ServiceStatus").is_none(),
        "one service has it"
    );
    cx.get("/services?status=maybe")?.refused(400, "invalid value for status: maybe").map(drop)
}

fn item_019_neither_name_nor_mode_can_change(cx: &Cx<'_>) -> Result<()> {
    let id = cx.service("svc", none())?;
    let service = cx.see_service(&id)?;
    let path = format!("/services/{id}/update?version={}", service["Version"]["Index"]);
    let mut renamed = service["Spec"].clone();
    renamed["Name"] = json!(cx.name("other"));
    cx.post(&path, &renamed)?.refused(501, "renaming services is not supported")?;
    let mut global = service["Spec"].clone();
    global["Mode"] = json!({"Global": {}});
    cx.post(&path, &global)?.refused(501, "service mode change is not allowed")?;
    same!(cx.see_service(&id)?["Version"], service["Version"], "version after two refusals");
    Ok(())
}

fn item_020_there_may_be_nothing_to_roll_back_to(cx: &Cx<'_>) -> Result<()> {
    let id = cx.service("svc", none())?;
    let service = cx.see_service(&id)?;
    let version = &service["Version"]["Index"];
    let path = format!("/services/{id}/update?rollback=previous&version={version}");
    cx.post(&path, &service["Spec"])?.refused(400, "does not have a previous spec")?;
    let path = format!("/services/{id}/update?rollback=sideways&version={version}");
    cx.post(&path, &service["Spec"])?.refused(500, "unrecognized rollback option sideways").map(drop)
}

fn item_022_removing_a_service_answers_200(cx: &Cx<'_>) -> Result<()> {
    let id = cx.service("svc", json!({}))?;
    cx.wait_running(&id, 1)?;
    cx.delete(&format!("/services/{id}"))?.status(200)?;
    cx.get(&format!("/services/{id}"))?.refused(404, &format!("service {id} not found"))?;
    cx.delete(&format!("/services/{id}"))?.refused(404, "not found").map(drop)
}

fn the_smallest_spec_comes_back_as_documented(cx: &Cx<'_>) -> Result<()> {
    let name = cx.name("small");
    let created = cx.post(
        "/services/create",
        &json!({"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest"}}}),
    )?;
    let id = text(&created.status(201)?.json()?["ID"]);
    let service = cx.see_service(&id)?;
    let wanted = json!({"Name": name, "Labels": {},
        "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest", "Isolation": "default"}, "ForceUpdate": 0, "Runtime": "container"},
        "Mode": {"Replicated": {"Replicas": 1}}});
    same!(service["Spec"], wanted, "spec");
    same!(service["Endpoint"], json!({"Spec": {}}), "endpoint");
    for absent in ["PreviousSpec", "UpdateStatus", "ServiceStatus", "JobStatus"] {
        ensure!(service.get(absent).is_none(), "{absent} is there");
    }
    ensure!(service["Version"]["Index"].as_u64() > Some(0), "version {}", service["Version"]);
    ensure!(text(&service["CreatedAt"]).ends_with('Z'), "time {}", service["CreatedAt"]);
    Ok(())
}

fn insert_defaults_fills_only_what_is_missing(cx: &Cx<'_>) -> Result<()> {
    let mut spec = none();
    crate::cx::merge(
        &mut spec,
        json!({"UpdateConfig": {"Parallelism": 3}, "TaskTemplate": {"RestartPolicy": {"MaxAttempts": 2}}}),
    );
    let id = cx.service("svc", spec)?;
    let service = cx.get(&format!("/services/{id}?insertDefaults=true"))?.json()?;
    let (spec, template) = (&service["Spec"], &service["Spec"]["TaskTemplate"]);
    same!(template["ContainerSpec"]["StopGracePeriod"], 10_000_000_000_u64, "grace period");
    same!(template["ContainerSpec"]["DNSConfig"], json!({}), "dns");
    same!(
        template["RestartPolicy"],
        json!({"Condition": "any", "Delay": 5_000_000_000_u64, "MaxAttempts": 2}),
        "restart policy"
    );
    ensure!(template["Resources"].is_object() && template["Placement"].is_object(), "template {template}");
    let update = json!({"Parallelism": 3, "FailureAction": "pause", "Monitor": 5_000_000_000_u64, "MaxFailureRatio": 0, "Order": "stop-first"});
    same!(spec["UpdateConfig"], update, "update config");
    same!(spec["RollbackConfig"]["Parallelism"], 1, "rollback parallelism");
    ensure!(cx.see_service(&id)?["Spec"].get("RollbackConfig").is_none(), "defaults are in the stored spec");
    Ok(())
}

fn list_filters_select(cx: &Cx<'_>) -> Result<()> {
    let mut labelled = none();
    crate::cx::merge(&mut labelled, json!({"Labels": {"tier": "front", "test": cx.name("x")}}));
    let front = cx.service("front", labelled)?;
    let mut labelled = none();
    crate::cx::merge(&mut labelled, json!({"Labels": {"test": cx.name("x")}}));
    let back = cx.service("back", labelled)?;
    let constraint =
        json!({"Mode": {"Global": {}}, "TaskTemplate": {"Placement": {"Constraints": ["node.labels.nowhere==x"]}}});
    let global = cx.service("global", constraint)?;
    let select =
        |filters: Value| -> Result<Vec<String>> { Ok(super::services::ids(&cx.engine.list("/services", &filters)?)) };
    let mine = |filters: Value| -> Result<Vec<String>> {
        let known = [&front, &back, &global];
        Ok(select(filters)?.into_iter().filter(|id| known.contains(&id)).collect())
    };
    let sorted = |ids: &[&String]| {
        let mut ids: Vec<String> = ids.iter().map(|id| (*id).clone()).collect();
        ids.sort();
        ids
    };
    same!(select(json!({"id": [front[..20].to_owned()]}))?, sorted(&[&front]), "by id prefix");
    same!(select(json!({"name": [cx.name("fr")]}))?, sorted(&[&front]), "by name prefix");
    same!(select(json!({"name": [cx.name("front"), cx.name("back")]}))?, sorted(&[&front, &back]), "by either name");
    same!(select(json!({"label": [format!("test={}", cx.name("x"))]}))?, sorted(&[&front, &back]), "by label value");
    same!(
        select(json!({"label": ["tier=front", format!("test={}", cx.name("x"))]}))?,
        sorted(&[&front]),
        "by two labels"
    );
    same!(
        select(json!({"label": {"tier=front": true}, "id": {front.as_str(): true}}))?,
        sorted(&[&front]),
        "the older form of filters"
    );
    same!(mine(json!({"mode": ["global"]}))?, sorted(&[&global]), "by mode");
    same!(mine(json!({"mode": ["global", "replicated"]}))?, sorted(&[&front, &back, &global]), "by either mode");
    same!(mine(json!({"label": ["tier"], "mode": ["global"]}))?, sorted(&[]), "both must hold");
    let all = cx.engine.list("/services", &json!({}))?;
    let listed: Vec<String> = all.iter().map(|service| text(&service["ID"])).collect();
    same!(listed, super::services::ids(&all), "lists are in the order of ids");
    Ok(())
}

fn an_unknown_service_or_task_or_node_is_404(cx: &Cx<'_>) -> Result<()> {
    cx.get("/services/nosuchthing")?.refused(404, "service nosuchthing not found")?;
    cx.get("/tasks/nosuchthing")?.refused(404, "task nosuchthing not found")?;
    cx.get("/nodes/nosuchthing")?.refused(404, "node nosuchthing not found")?;
    cx.delete("/nodes/nosuchthing")?.refused(404, "node nosuchthing not found")?;
    let spec = json!({"Name": "nosuchthing", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}});
    cx.post("/services/nosuchthing/update?version=1", &spec)?.refused(404, "service nosuchthing not found")?;
    cx.get(&format!("/tasks?filters={}", crate::http::encode(r#"{"service":["nosuchthing"]}"#)))?
        .refused(404, "not found")
        .map(drop)
}

fn impossible_specs_are_refused_with_dockers_texts(cx: &Cx<'_>) -> Result<()> {
    let template = |value: Value| json!({"TaskTemplate": value});
    let container = |value: Value| json!({"TaskTemplate": {"ContainerSpec": value}});
    let cases = [
        (json!({"Mode": {"Replicated": {"Replicas": 1}, "Global": {}}}), "must specify only one service mode"),
        (container(json!({"Image": ""})), "ContainerSpec: image reference must be provided"),
        (
            container(json!({"Image": "not a:reference:"})),
            "ContainerSpec: \"not a:reference:\" is not a valid repository/tag",
        ),
        (
            template(json!({"Resources": {"Limits": {"NanoCPUs": 1}}})),
            "invalid cpu value 1e-09: Must be at least 0.001",
        ),
        (
            template(json!({"Resources": {"Reservations": {"MemoryBytes": 4096}}})),
            "invalid memory value 4096: Must be at least 4MiB",
        ),
        (template(json!({"RestartPolicy": {"Delay": -1}})), "TaskSpec: restart-delay cannot be negative"),
        (template(json!({"RestartPolicy": {"Window": -1}})), "TaskSpec: restart-window cannot be negative"),
        (json!({"UpdateConfig": {"Delay": -1}}), "TaskSpec: update-delay cannot be negative"),
        (json!({"UpdateConfig": {"Monitor": -1}}), "TaskSpec: update-monitor cannot be negative"),
        (
            json!({"UpdateConfig": {"MaxFailureRatio": 1.5}}),
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
        ),
        (
            container(json!({"Mounts": [{"Type": "tmpfs", "Target": "/a"}, {"Type": "tmpfs", "Target": "/a"}]})),
            "ContainerSpec: duplicate mount point: /a",
        ),
        (
            container(json!({"Healthcheck": {"Test": ["CMD", "true"], "Interval": 1}})),
            "Interval in HealthConfig cannot be less than 1ms",
        ),
        (
            container(json!({"Healthcheck": {"Test": ["CMD", "true"], "Retries": -1}})),
            "ContainerSpec: Retries in HealthConfig cannot be negative",
        ),
    ];
    for (spec, wanted) in cases {
        cx.try_service("bad", spec)?.refused(400, wanted)?;
    }
    cx.try_service("bad", json!({"Mode": {"Replicated": {"Replicas": -1}}}))?.status(400)?;
    cx.try_service("bad", json!({"UpdateConfig": {"Delay": "soon"}}))?.status(400)?;
    same!(cx.engine.list("/services", &json!({"name": [cx.name("bad")]}))?.len(), 0, "services left by refusals");
    Ok(())
}

fn enumerations_are_checked(cx: &Cx<'_>) -> Result<()> {
    let cases = [
        (json!({"TaskTemplate": {"RestartPolicy": {"Condition": "maybe"}}}), "invalid RestartCondition: \"maybe\""),
        (json!({"UpdateConfig": {"FailureAction": "maybe"}}), "unrecognized update failure action maybe"),
        (json!({"UpdateConfig": {"Order": "maybe"}}), "unrecognized update order maybe"),
        (json!({"EndpointSpec": {"Mode": "maybe"}}), "invalid resolution mode: \"maybe\""),
        (
            json!({"TaskTemplate": {"ContainerSpec": {"Mounts": [{"Type": "maybe", "Target": "/a"}]}}}),
            "invalid MountType: \"maybe\"",
        ),
    ];
    for (spec, wanted) in cases {
        let answer = cx.try_service("bad", spec)?;
        ensure!(array(&json!([400, 500])).contains(&json!(answer.status)), "{}: {}", answer.status, answer.text());
        ensure!(answer.text().replace('\\', "").contains(wanted), "wanted {wanted}: {}", answer.text());
    }
    Ok(())
}

fn bad_constraints_are_refused(cx: &Cx<'_>) -> Result<()> {
    for (constraint, wanted) in [
        ("node.role=manager", "constraint expected one operator from ==, !="),
        ("9key==x", "key '9key' is invalid"),
        ("node.id==a,b", "value 'a,b' is invalid"),
    ] {
        cx.try_service("bad", json!({"TaskTemplate": {"Placement": {"Constraints": [constraint]}}}))?
            .refused(500, wanted)?;
    }
    Ok(())
}
