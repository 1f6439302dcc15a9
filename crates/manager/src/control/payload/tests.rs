//! One test for each refusal, by its text, and the calls that are not refused.

use std::collections::BTreeMap;

use shoal_types::id::{ConfigKind, SecretKind};
use shoal_types::spec::{ClusterSpec, FileTarget, SecretReference, ServiceSpec};

use super::*;
use crate::control::{EventAction, EventObject, ServiceUpdate};
use crate::testing::{Fixture, service};

async fn fixture() -> Fixture {
    Fixture::new(ClusterSpec::initial()).await
}

fn spec(name: &str, data: &str) -> PayloadSpec {
    PayloadSpec { name: name.into(), data: data.as_bytes().to_vec().into(), ..PayloadSpec::default() }
}

fn text<T: std::fmt::Debug>(result: Result<T, Refusal>, status: u16) -> String {
    let refusal = result.unwrap_err();
    assert_eq!(refusal.kind.http_status(), status, "{refusal}");
    refusal.to_string()
}

/// A service that wants a secret of that identifier and name.
fn user(service_name: &str, id: &str, name: &str) -> ServiceSpec {
    let mut spec = service(service_name, 0);
    let reference = SecretReference {
        file: Some(FileTarget { name: "pass".into(), ..FileTarget::default() }),
        secret_id: id.into(),
        secret_name: name.into(),
    };
    spec.task_template.container_spec.as_mut().unwrap().secrets.push(reference);
    spec
}

#[tokio::test]
async fn a_secret_is_made_read_labelled_and_removed() {
    let f = fixture().await;
    let id = f.control.create_payload::<SecretKind>(spec("pass", "x")).await.unwrap();
    let made = f.control.get_payload::<SecretKind>("pass").unwrap();
    assert_eq!((made.id, made.spec.data.bytes()), (id, &b"x"[..]));
    let labels = [("a".to_owned(), "b".to_owned())].into();
    let wanted = PayloadSpec { labels, ..spec("pass", "") };
    f.control.update_payload::<SecretKind>(&id.as_str()[..6], made.meta.version, wanted.clone()).await.unwrap();
    let changed = f.control.get_payload::<SecretKind>(id.as_str()).unwrap();
    assert_eq!((changed.spec.labels.len(), changed.spec.data.bytes()), (1, &b"x"[..]));
    let late = f.control.update_payload::<SecretKind>("pass", made.meta.version, wanted).await;
    assert_eq!(text(late, 500), "rpc error: code = Unknown desc = update out of sequence");
    let other = f.control.update_payload::<SecretKind>("pass", changed.meta.version, spec("pass", "y")).await;
    let wanted = "rpc error: code = InvalidArgument desc = only updates to Labels are allowed";
    assert_eq!(text(other, 400), wanted);
    f.control.remove_payload::<SecretKind>("pass").await.unwrap();
    assert_eq!(text(f.control.get_payload::<SecretKind>("pass"), 404), "secret pass not found");
    assert_eq!(text(f.control.remove_payload::<SecretKind>("pass").await, 404), "secret pass not found");
}

#[tokio::test]
async fn names_are_unique_in_any_case_within_their_kind() {
    let f = fixture().await;
    f.control.create_payload::<SecretKind>(spec("pass", "x")).await.unwrap();
    let again = f.control.create_payload::<SecretKind>(spec("PASS", "y")).await;
    assert_eq!(text(again, 409), "rpc error: code = AlreadyExists desc = secret PASS already exists");
    f.control.create_payload::<ConfigKind>(spec("pass", "x")).await.unwrap();
    let again = f.control.create_payload::<ConfigKind>(spec("pass", "y")).await;
    assert_eq!(text(again, 409), "rpc error: code = AlreadyExists desc = config pass already exists");
}

#[tokio::test]
async fn lists_are_filtered_as_docker_filters_them() {
    let f = fixture().await;
    for name in ["alpha", "Beta", "beta-2"] {
        f.control.create_payload::<SecretKind>(spec(name, "x")).await.unwrap();
    }
    let names = |filter: &str, value: &str| {
        let filters = Filters::new(BTreeMap::from([(filter.to_owned(), vec![value.to_owned()])]));
        let listed = f.control.list_payloads::<SecretKind>(&filters)?;
        let mut names: Vec<_> = listed.iter().map(|p| p.spec.name.clone()).collect();
        names.sort();
        Ok::<_, Refusal>(names)
    };
    assert_eq!(names("name", "bet").unwrap(), ["Beta", "beta-2"], "the start, in any case");
    assert_eq!(names("names", "beta").unwrap(), ["Beta"], "the whole name, in any case");
    assert_eq!(names("label", "a").unwrap(), Vec::<String>::new());
    assert_eq!(text(names("foo", "x"), 400), "invalid filter 'foo'");
    let names = Filters::new(BTreeMap::from([("names".to_owned(), vec!["x".to_owned()])]));
    assert_eq!(text(f.control.list_payloads::<ConfigKind>(&names), 400), "invalid filter 'names'");
}

#[tokio::test]
async fn a_secret_in_use_is_kept_and_its_users_are_named() {
    let f = fixture().await;
    let id = f.control.create_payload::<SecretKind>(spec("pass", "x")).await.unwrap();
    f.control.create_service(user("web", id.as_str(), "pass"), None).await.unwrap();
    let removed = f.control.remove_payload::<SecretKind>("pass").await;
    let wanted =
        "rpc error: code = InvalidArgument desc = secret 'pass' is in use by the following service: web".to_owned();
    assert_eq!(text(removed, 400), wanted);
    f.control.create_service(user("db", id.as_str(), "pass"), None).await.unwrap();
    let refused = text(f.control.remove_payload::<SecretKind>("pass").await, 400);
    assert!(refused.contains("the following services: ") && refused.contains("web") && refused.contains("db"));
    for name in ["web", "db"] {
        f.control.remove_service(name).await.unwrap();
    }
    f.control.remove_payload::<SecretKind>("pass").await.unwrap();
}

#[tokio::test]
async fn services_name_only_secrets_that_there_are_and_no_rollback_brings_lost_ones_back() {
    let f = fixture().await;
    let id = f.control.create_payload::<SecretKind>(spec("pass", "x")).await.unwrap();
    for (id, name) in [(id.as_str(), "other"), ("nonsense", "pass"), (&"0".repeat(25), "pass")] {
        let refused = text(f.control.create_service(user("web", id, name), None).await, 400);
        assert_eq!(refused, format!("rpc error: code = InvalidArgument desc = secret not found: {name}"));
    }
    f.control.create_service(user("web", id.as_str(), "pass"), None).await.unwrap();
    let at =
        || ServiceUpdate { version: f.control.get_service("web").unwrap().meta.version, ..ServiceUpdate::default() };
    f.control.update_service("web", service("web", 0), at()).await.unwrap();
    f.control.remove_payload::<SecretKind>("pass").await.expect("the previous spec protects nothing");
    let back = f.control.update_service("web", service("web", 0), ServiceUpdate { is_rollback: true, ..at() }).await;
    assert_eq!(text(back, 400), "rpc error: code = InvalidArgument desc = secret not found: pass");
}

#[tokio::test]
async fn secrets_and_configs_have_events() {
    let f = fixture().await;
    let mut events = f.control.events();
    let id = f.control.create_payload::<ConfigKind>(spec("conf", "x")).await.unwrap();
    f.control.remove_payload::<ConfigKind>("conf").await.unwrap();
    for action in [EventAction::Create, EventAction::Remove] {
        let event = loop {
            let event = events.next().await;
            if event.object == EventObject::Config {
                break event;
            }
        };
        assert_eq!((event.action, event.id.as_str()), (action, id.as_str()));
        assert_eq!(event.attributes, BTreeMap::from([("name".to_owned(), "conf".to_owned())]));
    }
}
