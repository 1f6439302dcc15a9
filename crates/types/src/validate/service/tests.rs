use serde_json::json;

use super::*;

/// The spec that Docker's smallest body makes, with members of `more` put in at their paths.
fn spec(more: &[(&str, serde_json::Value)]) -> ServiceSpec {
    let mut body = json!({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "nginx:alpine"}}});
    for (path, value) in more {
        let mut place = &mut body;
        for part in path.split('/') {
            place = &mut place[part];
        }
        *place = value.clone();
    }
    serde_json::from_value(body).unwrap()
}

fn refusal(more: &[(&str, serde_json::Value)]) -> Refusal {
    service(&spec(more)).unwrap_err()
}

#[test]
fn the_smallest_body_is_accepted_and_reads_back_with_its_defaults() {
    let given =
        spec(&[("EndpointSpec", json!({"Ports": [{"TargetPort": 80, "Protocol": "TPC", "PublishMode": "host"}]}))]);
    assert_eq!(service(&given), Ok(()));
    let normal = normal_service(given);
    assert_eq!(service(&normal), Ok(()));
    assert_eq!(normal.mode.replicas(), 1);
    let back = serde_json::to_value(&normal).unwrap();
    assert_eq!(back["TaskTemplate"]["Runtime"], "container");
    assert_eq!(back["TaskTemplate"]["ContainerSpec"]["Isolation"], "default");
    assert_eq!(back["EndpointSpec"]["Ports"][0]["Protocol"], "tcp");
}

#[test]
fn names_are_dns_name_components() {
    for good in ["a", "Web-1", "a__b", "0"] {
        assert_eq!(name(good), Ok(()), "{good}");
    }
    let dns = "rpc error: code = InvalidArgument desc = name must be valid as a DNS name component";
    for bad in ["a.b", "-a", "a_", "ä", "a b"] {
        assert_eq!(name(bad).unwrap_err().to_string(), dns, "{bad}");
    }
    assert_eq!(name("").unwrap_err().message, "meta: name must be provided");
    assert_eq!(name(&"a".repeat(64)).unwrap_err().message, "name must be 63 characters or fewer");
}

#[test]
fn what_breaks_a_rule_of_the_manager_is_refused_in_its_words() {
    let container = |member: &str, value: serde_json::Value| (format!("TaskTemplate/ContainerSpec/{member}"), value);
    let task = |member: &str, value: serde_json::Value| (format!("TaskTemplate/{member}"), value);
    let own = |member: &str, value: serde_json::Value| (member.to_owned(), value);
    let mounts = json!([{"Type": "tmpfs", "Target": "/a"}, {"Type": "tmpfs", "Target": "/a"}]);
    for ((path, value), text) in [
        (task("Resources/Limits/NanoCPUs", json!(500_000)), "invalid cpu value 0.0005: Must be at least 0.001"),
        (task("Resources/Reservations/NanoCPUs", json!(10_000)), "invalid cpu value 1e-05: Must be at least 0.001"),
        (task("Resources/Limits/MemoryBytes", json!(4_194_303)), "invalid memory value 4194303: Must be at least 4MiB"),
        (task("RestartPolicy/Delay", json!(-1)), "TaskSpec: restart-delay cannot be negative"),
        (task("RestartPolicy/Window", json!(-1)), "TaskSpec: restart-window cannot be negative"),
        (own("UpdateConfig/Delay", json!(-1)), "TaskSpec: update-delay cannot be negative"),
        (own("UpdateConfig/Monitor", json!(-1)), "TaskSpec: update-monitor cannot be negative"),
        (
            own("UpdateConfig/MaxFailureRatio", json!(1.5)),
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
        ),
        (container("Image", json!("")), "ContainerSpec: image reference must be provided"),
        (container("Image", json!("A b")), "ContainerSpec: \"A b\" is not a valid repository/tag"),
        (container("Mounts", mounts), "ContainerSpec: duplicate mount point: /a"),
        (
            container("Healthcheck/Interval", json!(999_999)),
            "ContainerSpec: Interval in HealthConfig cannot be less than 1ms",
        ),
        (container("Healthcheck/Retries", json!(-1)), "ContainerSpec: Retries in HealthConfig cannot be negative"),
        (own("Mode/Replicated/Replicas", json!(-1)), "Number of replicas must be non-negative"),
        (own("Mode/ReplicatedJob/MaxConcurrent", json!(-1)), "Maximum concurrent jobs must not be negative"),
        (own("Mode/ReplicatedJob/TotalCompletions", json!(-1)), "Total completed jobs must not be negative"),
        (
            own(
                "EndpointSpec",
                json!({"Ports": [
                {"TargetPort": 1, "PublishedPort": 9, "PublishMode": "host"},
                {"TargetPort": 2, "PublishedPort": 9, "PublishMode": "host"}]}),
            ),
            "EndpointSpec: duplicate published ports provided",
        ),
        (
            own("EndpointSpec", json!({"Mode": "dnsrr", "Ports": [{"TargetPort": 1}]})),
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
        ),
        (
            own("EndpointSpec", json!({"Ports": [{"TargetPort": 70000, "PublishMode": "host"}]})),
            "EndpointSpec: target port 70000 is not between 1 and 65535",
        ),
    ] {
        let refused = refusal(&[(&path, value)]);
        assert_eq!((refused.kind, &*refused.message), (RefusalKind::InvalidArgument, text));
        assert!(refused.to_string().starts_with("rpc error: code = InvalidArgument desc = "));
    }
    let job = [("Mode/GlobalJob", json!({})), ("UpdateConfig", json!({}))];
    assert_eq!(refusal(&job).message, "Jobs may not have an update config");
    let template = refusal(&[("TaskTemplate/ContainerSpec/Env", json!(["A={{.Nope}}"]))]);
    assert!(template.message.starts_with("expanding env failed: template"), "{template}");
}

#[test]
fn a_malformed_constraint_has_no_class_as_in_docker() {
    let refused = refusal(&[("TaskTemplate/Placement/Constraints", json!(["node.role"]))]);
    let text = "rpc error: code = Unknown desc = constraint expected one operator from ==, !=";
    assert_eq!((refused.kind.http_status(), refused.to_string()), (500, text.into()));
}

#[test]
fn what_the_engine_refuses_carries_no_prefix() {
    let bind = json!([{"Type": "bind", "Source": "/", "Target": "/x", "BindOptions": {"Propagation": "odd"}}]);
    for (more, text) in [
        (vec![("TaskTemplate/ContainerSpec/Mounts", bind)], "invalid MountPropagation: \"odd\""),
        (vec![("TaskTemplate/Resources/SwapBytes", json!(1))], "memory swap provided, but no memory-limit was set"),
        (
            vec![("Mode/Replicated/Replicas", json!(1)), ("Mode/Global", json!({}))],
            "must specify only one service mode",
        ),
        (vec![("TaskTemplate", json!({}))], "mismatched Runtime and *Spec fields"),
        (vec![("TaskTemplate", json!({"NetworkAttachmentSpec": {}}))], "unsupported runtime"),
    ] {
        assert_eq!(refusal(&more).to_string(), text);
    }
}

#[test]
fn what_shoal_does_not_have_is_refused_by_name() {
    let container = "TaskTemplate/ContainerSpec/";
    for (path, value, what) in [
        ("TaskTemplate/Networks".to_owned(), json!([{"Target": "app"}]), "attaching a service to the network \"app\""),
        (
            "EndpointSpec/Ports".to_owned(),
            json!([{"TargetPort": 80}]),
            "publishing a service's port in ingress mode (rather than mode=host)",
        ),
        (
            "TaskTemplate/Placement/Preferences".to_owned(),
            json!([{"Spread": {"SpreadDescriptor": "node.hostname"}}]),
            "the placement preference \"spread=node.hostname\"",
        ),
        (
            format!("{container}Configs"),
            json!([{ "Runtime": {}, "ConfigID": "a", "ConfigName": "b" }]),
            "a config with a runtime target",
        ),
        (format!("{container}Mounts"), json!([{"Type": "cluster", "Target": "/x"}]), "a cluster volume"),
        (format!("{container}Isolation"), json!("hyperv"), "the isolation \"hyperv\""),
        (
            format!("{container}Privileges"),
            json!({"CredentialSpec": {"Config": "x"}, "SELinuxContext": null}),
            "the service privilege CredentialSpec",
        ),
        ("TaskTemplate/Runtime".to_owned(), json!("plugin"), "the runtime type \"plugin\""),
    ] {
        let refused = refusal(&[(&path, value)]);
        assert_eq!(refused.kind, RefusalKind::Unimplemented, "{path}");
        assert_eq!(refused.to_string(), format!("{what} is not supported by Shoal yet"));
    }
}

#[test]
fn the_networks_of_every_node_and_no_new_privileges_are_accepted() {
    let given = [
        ("TaskTemplate/Networks", json!([{"Target": "host", "Aliases": ["web"]}])),
        (
            "TaskTemplate/ContainerSpec/Privileges",
            json!({"CredentialSpec": null, "SELinuxContext": null, "NoNewPrivileges": true}),
        ),
        ("TaskTemplate/Placement/Preferences", json!([{"Spread": {"SpreadDescriptor": "Node.Labels.zone"}}])),
    ];
    assert_eq!(service(&spec(&given)), Ok(()));
}

#[test]
fn name_and_mode_of_a_service_stay() {
    let before = normal_service(spec(&[]));
    assert_eq!(service_update(&before, &spec(&[("Mode/Replicated/Replicas", json!(3))])), Ok(()));
    let renamed = service_update(&before, &spec(&[("Name", json!("other"))])).unwrap_err();
    assert_eq!(renamed.to_string(), "rpc error: code = Unimplemented desc = renaming services is not supported");
    let global = service_update(&before, &spec(&[("Mode/Global", json!({}))])).unwrap_err();
    assert_eq!((global.kind.http_status(), &*global.message), (501, "service mode change is not allowed"));
}

#[test]
fn texts_of_closed_sets_are_read_as_docker_reads_them() {
    let given = [
        ("UpdateConfig", json!({"Order": "", "FailureAction": ""})),
        ("TaskTemplate/RestartPolicy", json!({"Condition": ""})),
        ("EndpointSpec", json!({"Mode": "", "Ports": [{"TargetPort": 1, "PublishMode": "odd"}]})),
        ("TaskTemplate/ContainerSpec/Mounts", json!([{"Type": "", "Source": "/a", "Target": "/a"}])),
    ];
    assert_eq!(spec(&given).update_config, Some(UpdateConfig { parallelism: 0, ..UpdateConfig::default() }));
    let body = |path: &str, value: serde_json::Value| {
        let mut body = json!({});
        path.split('/').fold(&mut body, |place, part| &mut place[part]).clone_from(&value);
        serde_json::from_value::<ServiceSpec>(body).unwrap_err().to_string()
    };
    for (path, text) in [
        ("UpdateConfig/Order", "unrecognized update order odd"),
        ("UpdateConfig/FailureAction", "unrecognized update failure action odd"),
        ("TaskTemplate/RestartPolicy/Condition", "invalid RestartCondition: \"odd\""),
        ("EndpointSpec/Mode", "invalid resolution mode: \"odd\""),
    ] {
        assert_eq!(body(path, json!("odd")), text);
    }
    let node = |body: serde_json::Value| serde_json::from_value::<crate::spec::NodeSpec>(body).unwrap_err().to_string();
    assert_eq!(node(json!({"Availability": "active"})), "invalid Role: \"\"");
    assert_eq!(node(json!({"Role": "worker", "Availability": "odd"})), "invalid Availability: \"odd\"");
}
