//! Pulling from Debian's registry.

mod support;

use shoal_image::{ErrorKind, Platform, Progress, PullOptions, Reference, RegistryAuth, RegistryConfig, RemoveOptions};
use support::image::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, TestImage, layer};
use support::{Events, Registry, Store, gzip};

fn two_layers() -> TestImage {
    TestImage::new(&[layer(&[("etc/base", b"base")]), layer(&[("etc/top", b"top"), ("etc/.wh.base", b"")])])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_brings_the_image_and_tells_its_story_as_docker_does() {
    let (registry, store, events) = (Registry::start(), Store::new(), Events::default());
    let image = two_layers();
    let reference = registry.push("team/app:1", &image).await;
    let pulled = store.store.pull(&reference, &PullOptions::default(), &events.sink()).await.expect("pulls");
    assert_eq!((pulled.id, pulled.digest, pulled.downloaded), (image.id(), image.digest(), true));

    let found = store.store.resolve(&reference.familiar()).expect("there");
    assert_eq!(found.repo_tags(), [format!("{}/team/app:1", registry.address)]);
    assert_eq!(found.repo_digests(), [format!("{}/team/app@{}", registry.address, image.digest())]);
    assert_eq!((found.size(), found.layers.len()), (7, 2));
    assert_eq!(store.store.document(&found.id).await.expect("reads"), image.config);

    let lines = events.lines();
    assert_eq!(lines[0], r#"{"status":"Pulling from team/app","id":"1"}"#);
    assert_eq!(lines[lines.len() - 2], format!(r#"{{"status":"Digest: {}"}}"#, image.digest()));
    assert_eq!(
        lines[lines.len() - 1],
        format!(r#"{{"status":"Status: Downloaded newer image for {}/team/app:1"}}"#, registry.address)
    );
    for blob in &image.layers {
        let states = events.states(&shoal_image::Digest::of(blob));
        let kept: Vec<&str> =
            states.iter().map(String::as_str).filter(|state| !["Waiting", "Downloading"].contains(state)).collect();
        assert_eq!(
            kept,
            ["Pulling fs layer", "Verifying Checksum", "Download complete", "Extracting", "Pull complete"]
        );
    }

    let events = Events::default();
    let again = store.store.pull(&reference, &PullOptions::default(), &events.sink()).await.expect("pulls");
    assert!(!again.downloaded);
    assert_eq!(events.lines().len(), 3);
    assert!(events.lines()[2].contains(&format!("Status: Image is up to date for {}/team/app:1", registry.address)));
    store.assert_only(2, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_and_compression_is_understood() {
    let (registry, store) = (Registry::start(), Store::new());
    let layers = [layer(&[("a", b"a")]), layer(&[("b", b"b")])];
    let zstd = |layer: &[u8]| zstd::encode_all(layer, 1).expect("in memory");
    let images = [
        TestImage::of(&layers, DOCKER_MANIFEST, gzip, &["N=1"]),
        TestImage::of(&layers, OCI_MANIFEST, zstd, &["N=2"]),
        TestImage::of(&layers, OCI_MANIFEST, <[u8]>::to_vec, &["N=3"]),
        TestImage::of(&[], OCI_MANIFEST, gzip, &["N=4"]),
    ];
    for (number, image) in images.iter().enumerate() {
        let reference = registry.push(&format!("app:{number}"), image).await;
        let pulled = store.store.pull(&reference, &PullOptions::default(), &Progress::none()).await.expect("pulls");
        assert_eq!(pulled.id, image.id());
    }
    // the layers are the same, however they travelled
    store.assert_only(2, 4 + 2);
    let by_digest = registry.reference("app").with_digest(images[1].digest());
    store.store.pull(&by_digest, &PullOptions::default(), &Progress::none()).await.expect("pulls by digest");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_lead_to_the_image_for_the_platform() {
    let (registry, store) = (Registry::start(), Store::new());
    let native = TestImage::new(&[layer(&[("native", b"")])]);
    let other = TestImage::new(&[layer(&[("other", b"")])]);
    let (host, arm) = (Platform::host(), Platform::parse("linux/s390x").expect("valid"));
    for (tag, kind) in [("docker", DOCKER_LIST), ("oci", OCI_INDEX)] {
        for image in [&native, &other] {
            registry.push("multi:part", image).await;
        }
        let entry = |image: &TestImage, platform: &Platform| serde_json::json!({"mediaType": image.media_type, "digest": image.digest(), "size": image.manifest.len(), "platform": platform});
        let list = serde_json::json!({"schemaVersion": 2, "mediaType": kind, "manifests": [entry(&other, &arm), entry(&native, &host)]});
        let list = list.to_string().into_bytes();
        let reference = registry.reference(&format!("multi:{tag}"));
        registry.put_manifest(&reference, kind, &list).await;

        let pulled = store.store.pull(&reference, &PullOptions::default(), &Progress::none()).await.expect("pulls");
        assert_eq!((pulled.id, pulled.digest), (native.id(), shoal_image::Digest::of(&list)));
        let options = PullOptions { platform: Some(arm.clone()), ..PullOptions::default() };
        assert_eq!(store.store.pull(&reference, &options, &Progress::none()).await.expect("pulls").id, other.id());
        let options = PullOptions { platform: Platform::parse("linux/mips"), ..PullOptions::default() };
        let error = store.store.pull(&reference, &options, &Progress::none()).await.expect_err("nothing fits");
        assert_eq!(error.to_string(), "no matching manifest for linux/mips in the manifest list entries");

        let inspected = store.store.distribution_inspect(&reference, None).await.expect("inspects");
        assert_eq!((inspected.descriptor.media_type.as_str(), inspected.descriptor.size), (kind, list.len() as u64));
        assert_eq!(inspected.platforms, [arm.clone(), host.clone()]);
    }
    let plain = registry.push("plain:1", &native).await;
    let inspected = store.store.distribution_inspect(&plain, None).await.expect("inspects");
    assert_eq!(
        (inspected.descriptor.digest, inspected.platforms[0].to_string()),
        (native.digest(), "linux/amd64".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named_as_docker_names_it() {
    let (registry, store) = (Registry::start(), Store::new());
    registry.push("app:1", &two_layers()).await;
    let error = |reference: Reference| {
        let store = store.store.clone();
        async move {
            store.pull(&reference, &PullOptions::default(), &Progress::none()).await.expect_err("not there").to_string()
        }
    };
    let host = registry.address;
    assert_eq!(
        error(registry.reference("app:2")).await,
        format!("manifest for {host}/app:2 not found: manifest unknown: manifest unknown")
    );
    assert_eq!(
        error(registry.reference("none")).await,
        format!("manifest for {host}/none:latest not found: manifest unknown: manifest unknown")
    );
    let inspected = store.store.distribution_inspect(&registry.reference("none"), None).await.expect_err("not there");
    assert_eq!(
        (inspected.to_string().as_str(), inspected.kind()),
        ("manifest unknown: manifest unknown", ErrorKind::NotFound)
    );
    let free = support::free_address();
    assert_eq!(
        error(Reference::parse(&format!("{free}/app")).expect("valid")).await,
        format!("Get \"http://{free}/v2/\": dial tcp {free}: connect: connection refused")
    );
    store.assert_only(0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_authentication_is_answered() {
    let dir = tempfile::tempdir().expect("temp dir");
    let htpasswd = dir.path().join("htpasswd");
    // "secret", as the registry wants it: bcrypt
    std::fs::write(&htpasswd, "me:$2b$05$Q44bSVQJ4SJyTwZGVuYPeeqxOHDUoNn/pTnAe.XEO5Rk2VtfR4b02\n").expect("written");
    let registry = Registry::with(&format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", htpasswd.display()));
    let store = Store::new();
    let reference = registry.reference("app:1");
    let error = store.store.pull(&reference, &PullOptions::default(), &Progress::none()).await.expect_err("refused");
    assert_eq!(
        error.to_string(),
        format!("Head \"http://{}/v2/app/manifests/1\": no basic auth credentials", registry.address)
    );
    let pull = |password: &str| {
        let auth = RegistryAuth { username: "me".into(), password: password.into(), ..RegistryAuth::default() };
        let (store, reference) = (store.store.clone(), reference.clone());
        async move {
            let options = PullOptions { auth: Some(auth), platform: None };
            store.pull(&reference, &options, &Progress::none()).await.expect_err("no such image").to_string()
        }
    };
    assert_eq!(pull("wrong").await, "unauthorized: authentication required");
    assert!(pull("secret").await.contains("manifest unknown"), "the password is accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_serves_docker_io_and_a_broken_one_is_passed_over() {
    let registry = Registry::start();
    let image = two_layers();
    registry.push("library/app:1", &image).await;
    let broken = support::free_address();
    let mirrors = vec![format!("http://{broken}"), format!("http://{}", registry.address)];
    let store = Store::with(RegistryConfig { mirrors, ..RegistryConfig::default() });
    let reference = Reference::parse("app:1").expect("valid");
    let pulled = store.store.pull(&reference, &PullOptions::default(), &Progress::none()).await.expect("pulls");
    assert_eq!(pulled.id, image.id());
    assert_eq!(store.store.list()[0].repo_tags(), ["app:1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_images_frees_what_no_other_needs() {
    let (registry, store) = (Registry::start(), Store::new());
    let base = layer(&[("base", b"base")]);
    let left = TestImage::new(&[base.clone(), layer(&[("left", b"")])]);
    let right = TestImage::new(&[base, layer(&[("right", b"")])]);
    for (name, image) in [("left", &left), ("right", &right)] {
        let reference = registry.push(name, image).await;
        let reference = reference.with_default_tag();
        store.store.pull(&reference, &PullOptions::default(), &Progress::none()).await.expect("pulls");
    }
    store.assert_only(3, 5);
    let removed = store.store.remove(&left.id().hex(), RemoveOptions::default(), &[]).await.expect("removes");
    let json = serde_json::to_value(&removed).expect("json");
    let host = registry.address;
    assert_eq!(json[0]["Untagged"], format!("{host}/left:latest"));
    assert_eq!(json[1]["Untagged"], format!("{host}/left@{}", left.digest()));
    assert_eq!(json[2]["Deleted"], left.id().to_string());
    assert_eq!(
        (json.as_array().map(Vec::len), json[3]["Deleted"].is_string()),
        (Some(4), true),
        "its own layer, not the shared one"
    );
    store.assert_only(2, 3);
    store.store.remove(&format!("{host}/right"), RemoveOptions::default(), &[]).await.expect("removes");
    store.assert_only(0, 0);
}
