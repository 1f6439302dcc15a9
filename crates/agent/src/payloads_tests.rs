//! What a container gets, and when it can be known that it gets nothing.

use futures::FutureExt;
use shoal_types::spec::{ConfigReference, PayloadDriver, SecretReference, ServiceSpec};
use shoal_types::{Config, Meta, Secret};

use super::*;

fn id<K>(n: u64) -> shoal_types::Id<K> {
    format!("{n:0>25}").parse().unwrap()
}

fn spec(data: &[u8], template: Option<&str>) -> Arc<PayloadSpec> {
    let templating = template.map(|name| PayloadDriver { name: name.into(), ..PayloadDriver::default() });
    Arc::new(PayloadSpec { data: data.to_vec().into(), templating, ..PayloadSpec::default() })
}

fn secret(n: u64, data: &[u8], template: Option<&str>) -> Assigned {
    Assigned::Secret(Arc::new(Secret { id: id(n), meta: Meta::default(), spec: spec(data, template) }))
}

fn config(n: u64, data: &[u8], template: Option<&str>) -> Assigned {
    Assigned::Config(Arc::new(Config { id: id(n), meta: Meta::default(), spec: spec(data, template) }))
}

fn file(name: &str) -> FileTarget {
    FileTarget { name: name.into(), uid: "5".into(), gid: String::new(), mode: 0o440 }
}

/// Wants the secrets and configs of these numbers at these places.
fn container(secrets: &[(u64, &str)], configs: &[(u64, &str)]) -> ContainerSpec {
    let secret = |(n, at): &(u64, &str)| SecretReference {
        file: Some(file(at)),
        secret_id: id::<()>(*n).to_string(),
        secret_name: "s".into(),
    };
    let config = |(n, at): &(u64, &str)| ConfigReference {
        file: Some(file(at)),
        runtime: None,
        config_id: id::<()>(*n).to_string(),
        config_name: "c".into(),
    };
    ContainerSpec {
        secrets: secrets.iter().map(secret).collect(),
        configs: configs.iter().map(config).collect(),
        ..ContainerSpec::default()
    }
}

fn files(payloads: &Payloads, container: &ContainerSpec) -> Result<Vec<PlannedFile>, PayloadError> {
    let service = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    let all = payloads.of(container).now_or_never().expect("nothing to wait for")?;
    plan_files(&all, &["MODE=fast=1".into()], &Context::sample(&service))
}

#[test]
fn files_lie_where_they_are_wanted_with_their_owner_and_mode() {
    let payloads = Payloads::default();
    payloads.apply(true, vec![secret(1, b"a\xff", None), config(1, b"b", None)]);
    let files = files(&payloads, &container(&[(1, "pass"), (1, "/etc/pass")], &[(1, "app.conf")])).unwrap();
    let paths: Vec<_> = files.iter().map(|f| &*f.path).collect();
    assert_eq!(paths, ["/run/secrets/pass", "/etc/pass", "/app.conf"]);
    assert_eq!((files[0].uid, files[0].gid, files[0].mode, &*files[0].data), (5, 0, 0o440, &b"a\xff"[..]));
    assert_eq!(format!("{:?}", files[2]), "/app.conf (1 bytes)", "no content in logs");
}

#[tokio::test]
async fn what_is_missing_is_waited_for_until_a_manager_says_that_it_does_not_exist() {
    let (payloads, wants) = (Payloads::default(), container(&[(1, "a")], &[]));
    assert!(payloads.of(&wants).now_or_never().is_none(), "no manager has said anything");
    assert_eq!(payloads.of(&container(&[], &[])).now_or_never(), Some(Ok(Vec::new())));
    let (found, ()) = tokio::join!(payloads.of(&wants), async { payloads.apply(true, vec![secret(1, b"x", None)]) });
    assert_eq!(found.unwrap().len(), 1);
    payloads.apply(false, vec![secret(2, b"y", None), Assigned::RemoveSecret(id(1))]);
    let error = payloads.of(&wants).await.unwrap_err().to_string();
    assert_eq!(error, format!("unable to get secret from secret store: secret {} not found", id::<()>(1)));
    assert_eq!(payloads.of(&container(&[(2, "a")], &[])).await.unwrap().len(), 1);
    payloads.apply(true, Vec::new());
    assert!(payloads.of(&container(&[(2, "a")], &[])).await.is_err(), "a new beginning forgets what came before");
}

#[test]
fn templates_speak_of_the_task_and_of_what_it_has() {
    let payloads = Payloads::default();
    let text = b"{{.Service.Name}} {{secret \"pass\"}} {{config \"/raw\"}} {{env \"MODE\"}}";
    payloads.apply(true, vec![secret(1, b"s3cr3t", None), config(1, text, Some("golang")), config(2, b"{{", None)]);
    let wants = container(&[(1, "pass")], &[(1, "/out"), (2, "/raw")]);
    assert_eq!(files(&payloads, &wants).unwrap()[1].data, b"web s3cr3t {{ fast=1");
}

#[test]
fn templates_that_cannot_be_expanded_are_errors_that_name_them() {
    let payloads = Payloads::default();
    let other = b"{{secret \"other\"}}";
    payloads.apply(
        true,
        vec![secret(1, b"x", Some("jinja")), secret(2, other, Some("golang")), secret(3, b"\xff", Some("golang"))],
    );
    for (n, end) in [
        (1, "unrecognized template type"),
        (2, "error calling secret: secret target other not found"),
        (3, "it is not UTF-8 text"),
    ] {
        let error = files(&payloads, &container(&[(n, "a")], &[])).unwrap_err().to_string();
        let start = "unable to get secret from secret store: failed to expand templated secret 0";
        assert!(error.starts_with(start) && error.ends_with(end), "{error}");
    }
}
