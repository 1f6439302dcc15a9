//! Each rule by its text.

use serde_json::{Value, json};

use super::*;
use crate::spec::PayloadDriver;

fn spec(name: &str, bytes: usize) -> PayloadSpec {
    PayloadSpec { name: name.into(), data: vec![7; bytes].into(), ..PayloadSpec::default() }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>) -> String {
    let refusal = result.unwrap_err();
    assert_eq!(refusal.kind.http_status(), 400);
    refusal.message
}

#[test]
fn sizes_have_dockers_bounds_to_the_byte() {
    assert_eq!(payload::<SecretKind>(&spec("a", 1)), Ok(()));
    assert_eq!(payload::<SecretKind>(&spec("a", 511_999)), Ok(()));
    assert_eq!(payload::<ConfigKind>(&spec("a", 1_023_999)), Ok(()));
    let secret = "secret data must be larger than 0 and less than 512000 bytes";
    assert_eq!(refused(payload::<SecretKind>(&spec("a", 0))), secret);
    assert_eq!(refused(payload::<SecretKind>(&spec("a", 512_000))), secret);
    let config = "config data must be larger than 0 and less than 1024000 bytes";
    assert_eq!(refused(payload::<ConfigKind>(&spec("a", 0))), config);
    assert_eq!(refused(payload::<ConfigKind>(&spec("a", 1_024_000))), config);
}

#[test]
fn names_have_dockers_form() {
    let long = "a".repeat(64);
    for name in ["a", "A.b-c_d", "0", &long] {
        assert_eq!(payload::<SecretKind>(&spec(name, 1)), Ok(()), "{name}");
    }
    assert_eq!(refused(payload::<SecretKind>(&spec("", 1))), "name must be provided");
    for name in ["-a", "a-", ".a", "a_", "a b", "ä", "a/b", &"a".repeat(65)] {
        let text = refused(payload::<ConfigKind>(&spec(name, 1)));
        assert!(text.starts_with("invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start"), "{text}");
    }
}

#[test]
fn drivers_are_refused_by_name() {
    let with = |driver: &str| PayloadSpec {
        driver: Some(PayloadDriver { name: driver.into(), ..PayloadDriver::default() }),
        ..spec("a", 0)
    };
    assert_eq!(refused(payload::<SecretKind>(&with(""))), "secret driver must have a name");
    let refusal = payload::<SecretKind>(&with("vault")).unwrap_err();
    assert_eq!(refusal.to_string(), "a driver of a secret is not supported by Shoal yet");
    let templating = PayloadDriver { name: "golang".into(), options: [("a".into(), "b".into())].into() };
    let refusal = payload::<ConfigKind>(&PayloadSpec { templating: Some(templating), ..spec("a", 1) }).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Unimplemented);
}

#[test]
fn only_labels_change_and_what_is_left_out_stays() {
    let before = spec("a", 3);
    let labels: crate::spec::Labels = [("k".to_owned(), "v".to_owned())].into();
    let wanted = PayloadSpec { labels: labels.clone(), ..spec("a", 0) };
    assert_eq!(payload_update(&before, wanted), Ok(PayloadSpec { labels, ..before.clone() }));
    assert_eq!(payload_update(&before, before.clone()), Ok(before.clone()));
    for other in [spec("A", 3), spec("a", 4)] {
        assert_eq!(refused(payload_update(&before, other)), "only updates to Labels are allowed");
    }
    let templating = Some(PayloadDriver { name: "golang".into(), ..PayloadDriver::default() });
    let templated = PayloadSpec { templating, ..spec("a", 0) };
    assert_eq!(refused(payload_update(&before, templated)), "only updates to Labels are allowed");
}

fn container(field: &str, references: Value) -> ContainerSpec {
    serde_json::from_value(json!({ field: references })).unwrap()
}

#[test]
fn references_must_be_whole_and_have_targets_of_their_own() {
    let secret = |id: &str, name: &str, file: Value| json!({ "SecretID": id, "SecretName": name, "File": file });
    let file = |name: &str| json!({ "Name": name, "UID": "0", "GID": "0", "Mode": 292 });
    let at = |list: Value| references(&container("Secrets", list));
    assert_eq!(at(json!([secret("i", "a", file("x")), secret("i", "b", file("y"))])), Ok(()));
    for (list, text) in [
        (json!([secret("", "a", file("x"))]), "malformed secret reference"),
        (json!([secret("i", "", file("x"))]), "malformed secret reference"),
        (json!([secret("i", "a", Value::Null)]), "malformed secret reference, no target provided"),
        (json!([secret("i", "a", file(""))]), "malformed file secret reference, invalid target file name provided"),
        (
            json!([secret("i", "a", file("x")), secret("j", "b", file("x"))]),
            "secret references 'a' and 'b' have a conflicting target: 'x'",
        ),
        (
            json!([secret("i", "a", json!({ "Name": "x", "UID": "root" }))]),
            "malformed file secret reference 'a', the uid \"root\" is not a number",
        ),
    ] {
        assert_eq!(refused(at(list)), text);
    }
}

#[test]
fn configs_are_a_file_or_something_else_but_not_both() {
    let config = |more: Value| {
        let mut reference = json!({ "ConfigID": "i", "ConfigName": "a" });
        reference.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        container("Configs", json!([reference]))
    };
    let (file, runtime) = (json!({ "File": { "Name": "x" } }), json!({ "Runtime": {} }));
    for good in [&file, &runtime] {
        assert_eq!(engine_rules(&config(good.clone())).and(references(&config(good.clone()))), Ok(()));
    }
    let refused = |more: Value| engine_rules(&config(more)).unwrap_err().to_string();
    assert_eq!(refused(json!({})), "invalid Config: either File or Runtime should be set");
    let both = json!({ "File": { "Name": "x" }, "Runtime": {} });
    assert_eq!(refused(both), "invalid Config: cannot specify both File and Runtime");
}
