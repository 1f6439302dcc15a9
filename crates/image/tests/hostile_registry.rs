//! Registries that stall, lie, corrupt and never end: each pull fails with a clear error, and nothing half-made stays.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shoal_image::{Digest, Progress, PullOptions, Reference, RegistryAuth, RegistryConfig};
use support::image::{OCI_INDEX, OCI_MANIFEST, TestImage, layer};
use support::{Events, Fake, Reply, Request, Store, Then, gzip};

fn image() -> TestImage {
    let noise: Vec<u8> = (0..200_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    TestImage::new(&[layer(&[("base", b"base")]), layer(&[("noise", &noise)])])
}

/// The answer to the request for an image's second layer, changed by `change`.
fn on_last_layer(
    change: impl Fn(&[u8]) -> Reply + Send + Sync + 'static,
) -> impl Fn(&Request, &TestImage) -> Option<Reply> + Send + Sync {
    move |request, image| {
        let last = image.layers.last().expect("some");
        request.path.ends_with(&Digest::of(last).to_string()).then(|| change(last))
    }
}

async fn refuse(fake: &Fake) -> String {
    let store = Store::new();
    let error = refuse_in(&store, &fake.reference("app:1")).await;
    store.assert_only(0, 0);
    error
}

async fn refuse_in(store: &Store, reference: &Reference) -> String {
    let pull = async { store.store.pull(reference, &PullOptions::default(), &Progress::none()).await };
    let result = tokio::time::timeout(Duration::from_secs(20), pull).await.expect("an answer in time");
    assert_eq!(store.store.list(), []);
    result.expect_err("refused").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_stalls_is_given_up() {
    let head = |layer: &[u8]| format!("200 OK\r\nContent-Length: {}", layer.len());
    let in_body =
        image().serve_but(on_last_layer(move |layer| Reply::raw(&head(layer), &layer[..1000], Then::Stall))).await;
    let error = refuse(&in_body).await;
    assert!(error.starts_with("Get \"http://") && error.ends_with(": the registry sent nothing for 0.5 s"), "{error}");

    let in_head = image()
        .serve_but(|request, _| request.path.contains("/manifests/").then(|| Reply::raw("200 OK", b"", Then::Stall)))
        .await;
    assert!(refuse(&in_head).await.ends_with("sent nothing for 0.5 s"));
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let reference = Reference::parse(&format!("{}/app", silent.local_addr().expect("bound"))).expect("valid");
    let error = refuse_in(&Store::new(), &reference).await;
    assert!(error.contains("/v2/\": "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_blob_is_refused() {
    let corrupt = image().serve_but(on_last_layer(|layer| {
        let mut layer = layer.to_vec();
        let middle = layer.len() / 2;
        layer[middle] ^= 1;
        Reply::ok("x/y", &layer)
    }));
    let error = refuse(&corrupt.await).await;
    let digest = Digest::of(&image().layers[1]);
    let is_told = error == format!("filesystem layer verification failed for digest {digest}")
        || error.starts_with("failed to register layer: ");
    assert!(is_told, "{error}");
    // bytes that unpack well, but are not the ones that were asked for
    let swapped = gzip(&layer(&[("noise", b"other")]));
    let other = image().serve_but(on_last_layer(move |layer| {
        let mut padded = swapped.clone();
        padded.resize(layer.len(), 0);
        Reply::ok("x/y", &padded)
    }));
    assert!(!refuse(&other.await).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_that_lie_are_refused() {
    let digest = Digest::of(&image().layers[1]);
    let size = image().layers[1].len();
    let announced = image().serve_but(on_last_layer(|layer| Reply::ok("x/y", &layer[..100]))).await;
    assert_eq!(refuse(&announced).await, format!("blob {digest} is 100 bytes, but the manifest says {size}"));
    let cut = image().serve_but(on_last_layer(|layer| {
        Reply::raw(&format!("200 OK\r\nContent-Length: {}", layer.len()), &layer[..100], Then::Close)
    }));
    assert!(refuse(&cut.await).await.starts_with("Get \"http://"));
    let short = image().serve_but(on_last_layer(|layer| Reply::raw("200 OK", &layer[..100], Then::Close))).await;
    assert!(refuse(&short).await.ends_with(": unexpected EOF"));
    let endless = image().serve_but(on_last_layer(|layer| Reply::raw("200 OK", layer, Then::Endless))).await;
    let error = refuse(&endless).await;
    assert!(
        error.starts_with(&format!("blob {digest} is ")) && error.ends_with(&format!("but the manifest says {size}")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_without_end_are_refused() {
    for part in ["/manifests/", &Digest::of(&image().config).to_string()] {
        let part = part.to_owned();
        let endless = image().serve_but(move |request, _| {
            request
                .path
                .contains(&part)
                .then(|| Reply::raw(&format!("200 OK\r\nContent-Type: {OCI_MANIFEST}"), b"{", Then::Endless))
        });
        let error = refuse(&endless.await).await;
        assert!(error.contains("is larger than"), "{error}");
    }
    let error = Fake::serve(|_| Reply::raw("404 Not Found", b"{", Then::Endless)).await;
    assert_eq!(refuse(&error).await, "received unexpected HTTP status: 404 Not Found");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_without_end_are_refused() {
    let loops = image().serve_but(|request, _| {
        let is_blob = request.path.contains("/blobs/");
        is_blob.then(|| Reply::raw(&format!("307 Temporary Redirect\r\nLocation: {}x", request.path), b"", Then::Close))
    });
    let error = refuse(&loops.await).await;
    assert!(error.ends_with(": stopped after 10 redirects"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_not_its_digest_or_makes_no_sense_is_refused() {
    let fake = image().serve_but(|_, _| None).await;
    let store = Store::new();
    let wrong = fake.reference("app").with_digest(Digest::of(b"other"));
    assert_eq!(
        refuse_in(&store, &wrong).await,
        format!("manifest verification failed for digest {}", Digest::of(b"other"))
    );
    for (body, part) in [
        ("<html>", "registry sent a malformed manifest: "),
        (r#"{"schemaVersion":1,"fsLayers":[]}"#, "unsupported manifest media type"),
        (
            r#"{"schemaVersion":2,"config":{"digest":"md5:x","size":1},"layers":[]}"#,
            "registry sent a malformed manifest: ",
        ),
    ] {
        let fake = image()
            .serve_but(move |request, _| {
                request.path.contains("/manifests/").then(|| Reply::ok("x/y", body.as_bytes()))
            })
            .await;
        let error = refuse(&fake).await;
        assert!(error.starts_with(part), "{error}");
    }
    let loops = format!(r#"{{"manifests":[{{"digest":"{}","size":1}}]}}"#, Digest::of(b"x"));
    let fake = image()
        .serve_but(move |request, _| {
            request.path.contains("/manifests/").then(|| Reply::ok(OCI_INDEX, loops.as_bytes()))
        })
        .await;
    assert!(refuse(&fake).await.starts_with("manifest verification failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_that_does_not_fit_its_layers_is_refused() {
    let honest = image();
    let mut short = TestImage::assemble(honest.config.clone(), honest.layers[..1].to_vec(), OCI_MANIFEST);
    let error = refuse(&short.clone().serve_but(|_, _| None).await).await;
    assert!(error.ends_with("is malformed: its manifest has 1 layers, its config 2"), "{error}");
    short.layers.push(gzip(&layer(&[("not", b"what the config says")])));
    let swapped = TestImage::assemble(honest.config.clone(), short.layers, OCI_MANIFEST);
    let error = refuse(&swapped.serve_but(|_, _| None).await).await;
    assert!(error.starts_with("failed to register layer: layer content is sha256:"), "{error}");
    let windows = String::from_utf8(honest.config).expect("json").replace("linux", "windows");
    let windows = TestImage::assemble(windows.into_bytes(), honest.layers, OCI_MANIFEST);
    let error = refuse(&windows.serve_but(|_, _| None).await).await;
    assert_eq!(error, "image operating system \"windows\" cannot be used on this platform");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_climbs_out_is_refused_and_leaves_nothing() {
    let evil = TestImage::new(&[layer(&[("fine", b"x")]), layer(&[("../../../evil", b"x")])]);
    let error = refuse(&evil.serve_but(|_, _| None).await).await;
    assert_eq!(error, "failed to register layer: layer entry \"../../../evil\" is outside of its root: refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_download_goes_on_where_it_stopped() {
    let tries = AtomicUsize::new(0);
    let fake = image()
        .serve_but(move |request, image| {
            let last = image.layers.last().expect("some");
            if !request.path.ends_with(&Digest::of(last).to_string()) {
                return None;
            }
            let length = last.len();
            Some(match tries.fetch_add(1, Ordering::SeqCst) {
                0 => Reply::raw(&format!("200 OK\r\nContent-Length: {length}"), &last[..1000], Then::Close),
                _ => {
                    assert!(request.headers.contains("range: bytes=1000-"), "{}", request.headers);
                    let head = format!("206 Partial Content\r\nContent-Length: {}", length - 1000);
                    Reply::raw(&head, &last[1000..], Then::Close)
                }
            })
        })
        .await;
    let (store, events) = (Store::with(RegistryConfig::default()), Events::default());
    store.store.pull(&fake.reference("app:1"), &PullOptions::default(), &events.sink()).await.expect("pulls");
    assert!(events.states(&Digest::of(&image().layers[1])).contains(&"Retrying in 1 second".to_owned()));
    store.assert_only(2, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_of_one_image_at_once_share_their_downloads() {
    let fake = image().serve_but(|_, _| None).await;
    let store = Store::new();
    let reference = fake.reference("app:1");
    let pulls =
        (0..8).map(|_| async { store.store.pull(&reference, &PullOptions::default(), &Progress::none()).await });
    for pulled in futures::future::join_all(pulls).await {
        assert_eq!(pulled.expect("pulls").id, image().id());
    }
    for layer in &image().layers {
        assert_eq!(fake.count(&Digest::of(layer).to_string()), 1);
    }
    store.assert_only(2, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_given_up_leaves_nothing_and_one_that_shares_its_layers_goes_on() {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let fake = image().serve_but(on_last_layer(move |layer| {
        tokio::task::block_in_place(|| gate.lock().expect("one at a time").recv().ok());
        Reply::ok("x/y", layer)
    }));
    let fake = fake.await;
    let store = Store::with(RegistryConfig::default());
    let reference = fake.reference("app:1");
    let start = |events: &Events| {
        let (store, reference, sink) = (store.store.clone(), reference.clone(), events.sink());
        tokio::spawn(async move { store.pull(&reference, &PullOptions::default(), &sink).await })
    };
    let (first_events, second_events) = (Events::default(), Events::default());
    let (first, second) = (start(&first_events), start(&second_events));
    let base = Digest::of(&image().layers[0]);
    support::wait_for("both to have the first layer", || {
        let has_base = |events: &Events| {
            events.states(&base).iter().any(|state| state == "Pull complete" || state == "Already exists")
        };
        has_base(&first_events) && has_base(&second_events)
    });
    first.abort();
    assert!(first.await.expect_err("aborted").is_cancelled());
    release.send(()).expect("the registry waits");
    assert_eq!(second.await.expect("ran").expect("pulls").id, image().id());

    let alone = Store::with(RegistryConfig::default());
    let (sink, reference, inner) = (first_events.sink(), fake.reference("app:1"), alone.store.clone());
    let given_up = tokio::spawn(async move { inner.pull(&reference, &PullOptions::default(), &sink).await });
    support::wait_for("the second request", || fake.count(&base.to_string()) == 2);
    given_up.abort();
    assert!(given_up.await.expect_err("aborted").is_cancelled());
    alone.assert_only(0, 0);
    drop(release);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_with_the_credentials_at_hand() {
    let realm = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let own = realm.clone();
    let fake = image()
        .serve_but(move |request, _| {
            if request.path.starts_with("/token") {
                let with_password = request.path.contains("account=me")
                    && request.headers.contains("authorization: basic bwu6cgfzdw==");
                let with_refresh = request.method == "POST" && request.body.contains("refresh_token=r3fresh");
                let allowed = with_password || with_refresh;
                return Some(match allowed {
                    true => Reply::ok("application/json", br#"{"access_token":"t0ken"}"#),
                    false => Reply::ok("application/json", br#"{"token":"anonymous"}"#),
                });
            }
            let challenge = format!("WWW-Authenticate: Bearer realm=\"{}\",service=\"test\"", own.get().expect("set"));
            if request.path == "/v2/" || request.headers.contains("authorization: bearer t0ken") {
                return None;
            }
            Some(match request.headers.contains("authorization: bearer anonymous") {
                true => Reply::raw(
                    &format!("401 Unauthorized\r\n{challenge},error=\"insufficient_scope\""),
                    b"",
                    Then::Close,
                ),
                false => Reply::raw(&format!("401 Unauthorized\r\n{challenge}"), b"", Then::Close),
            })
        })
        .await;
    realm.set(format!("http://{}/token", fake.address)).expect("once");
    let error = refuse(&fake).await;
    assert_eq!(
        error,
        format!(
            "pull access denied for {}/app, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
            fake.address
        )
    );
    let with_password = RegistryAuth { username: "me".into(), password: "pasw".into(), ..RegistryAuth::default() };
    let with_refresh = RegistryAuth { identity_token: "r3fresh".into(), ..RegistryAuth::default() };
    let with_token = RegistryAuth { registry_token: "t0ken".into(), ..RegistryAuth::default() };
    for auth in [with_password, with_refresh, with_token] {
        let options = PullOptions { auth: Some(auth), platform: None };
        Store::new().store.pull(&fake.reference("app:1"), &options, &Progress::none()).await.expect("pulls");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_leaves_room_again() {
    let disk = support::SmallDisk::mount(4 << 20);
    let noise: Vec<u8> = (0..6_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let big = TestImage::new(&[layer(&[("base", b"base")]), layer(&[("noise", &noise)])]);
    let small = image();
    let fake = big.serve_but(|_, _| None).await;
    let store = Store::at(&disk.path, RegistryConfig::default());
    let error = refuse_in(&store, &fake.reference("app:1")).await;
    assert!(error.contains("No space left on device"), "{error}");
    store.assert_only(0, 0);
    let fake = small.clone().serve_but(|_, _| None).await;
    store
        .store
        .pull(&fake.reference("app:2"), &PullOptions::default(), &Progress::none())
        .await
        .expect("there is room again");
    store.assert_only(2, 3);
    drop(store);
}
