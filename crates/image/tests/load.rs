//! Loading archives.

mod support;

use std::io::Cursor;

use shoal_image::{Digest, ErrorKind, LoadError, Loaded, Progress};
use support::image::{OCI_INDEX, TestImage, layer};
use support::{Events, Store, gzip};

/// An archive of named members, in order.
#[derive(Clone, Default)]
struct Archive(Vec<Member>);

type Member = (String, Vec<u8>);

impl Archive {
    fn add(mut self, name: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        self.0.push((name.into(), data.into()));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, data) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, data.as_slice()).expect("in memory");
        }
        builder.into_inner().expect("in memory")
    }
}

fn layers() -> Vec<Vec<u8>> {
    vec![layer(&[("etc/base", b"base")]), layer(&[("etc/top", b"top")])]
}

/// What `docker save` wrote up to version 24.
fn docker_archive(image: &TestImage, tags: &[&str]) -> Archive {
    let hex = image.id().hex();
    let names = ["one/layer.tar", "two/layer.tar"];
    let manifest = serde_json::json!([{"Config": format!("{hex}.json"), "RepoTags": tags, "Layers": names}]);
    Archive::default()
        .add(names[0], layers()[0].clone())
        .add(names[1], layers()[1].clone())
        .add(format!("{hex}.json"), image.config.clone())
        .add("repositories", "{}")
        .add("manifest.json", manifest.to_string())
}

/// An OCI layout, as buildx and skopeo write it.
fn oci_layout(image: &TestImage, name: &str) -> Archive {
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{
        "mediaType": image.media_type, "digest": image.digest(), "size": image.manifest.len(),
        "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "1"}}]});
    let blobs = image.blobs().into_values().chain([image.manifest.clone()]);
    let layout =
        Archive::default().add("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#).add("index.json", index.to_string());
    blobs.fold(layout, |layout, blob| layout.add(format!("blobs/sha256/{}", Digest::of(&blob).hex()), blob))
}

async fn load(store: &Store, archive: Vec<u8>, progress: &Progress) -> Result<Vec<Loaded>, LoadError> {
    store.store.load(Cursor::new(archive), progress).await
}

async fn refuse(archive: Vec<u8>) -> String {
    let store = Store::new();
    let error = load(&store, archive, &Progress::none()).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(store.store.list(), []);
    store.assert_only(0, 0);
    error.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_archives_load_plain_and_compressed() {
    let image = TestImage::new(&layers());
    let archive = docker_archive(&image, &["app:1", "other/app:2"]).bytes();
    let zstd = zstd::encode_all(archive.as_slice(), 1).expect("in memory");
    for archive in [archive.clone(), gzip(&archive), zstd] {
        let (store, events) = (Store::new(), Events::default());
        let loaded = load(&store, archive, &events.sink()).await.expect("loads");
        assert_eq!((loaded.len(), loaded[0].id, loaded[0].tags.len()), (1, image.id(), 2));
        assert_eq!(store.store.resolve("app:1").expect("there").repo_tags(), ["app:1", "other/app:2"]);
        let lines = events.lines();
        assert!(lines[0].starts_with(r#"{"status":"Loading layer","progressDetail":{"current":"#), "{}", lines[0]);
        assert_eq!(
            lines[lines.len() - 2..],
            [r#"{"stream":"Loaded image: app:1\n"}"#, r#"{"stream":"Loaded image: other/app:2\n"}"#]
        );
        store.assert_only(2, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_busybox_archive_loads_if_it_is_at_hand() {
    let Ok(path) = std::env::var("SHOAL_TEST_IMAGES") else { return };
    let store = Store::new();
    let archive = std::fs::read(format!("{path}/busybox_latest.tar")).expect("reads");
    load(&store, archive, &Progress::none()).await.expect("loads");
    assert_eq!(store.store.resolve("busybox").expect("there").config.config.cmd, Some(vec!["sh".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_layouts_load_with_compressed_layers() {
    let image = TestImage::new(&layers());
    let store = Store::new();
    let loaded =
        load(&store, oci_layout(&image, "docker.io/library/app:1").bytes(), &Progress::none()).await.expect("loads");
    assert_eq!(loaded[0].tags[0].familiar(), "app:1");
    assert_eq!(store.store.resolve("app:1").expect("there").id, image.id());
    // the same image as a docker archive has other blobs but the same layers
    load(&store, docker_archive(&image, &["app:2"]).bytes(), &Progress::none()).await.expect("loads");
    store.assert_only(2, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_a_link_to_another_is_found() {
    let one = layer(&[("x", b"x")]);
    let image = TestImage::new(&[one.clone(), one.clone()]);
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": null, "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    let mut builder = tar::Builder::new(Vec::new());
    let mut append = |name: &str, data: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        match link {
            None => builder.append_data(&mut header, name, data).expect("in memory"),
            Some(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, name, target).expect("in memory");
            }
        }
    };
    append("b/layer.tar", b"", Some("../a/layer.tar"));
    append("a/layer.tar", &one, None);
    append("config.json", &image.config, None);
    append("manifest.json", manifest.to_string().as_bytes(), None);
    let (store, events) = (Store::new(), Events::default());
    load(&store, builder.into_inner().expect("in memory"), &events.sink()).await.expect("loads");
    assert_eq!(
        events.lines().last().map(String::as_str),
        Some(format!(r#"{{"stream":"Loaded image ID: {}\n"}}"#, image.id()).as_str())
    );
    store.assert_only(2, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_moves_to_the_newer_image_and_the_old_one_stays_without_a_name() {
    let (old, new) =
        (TestImage::new(&layers()), TestImage::of(&layers(), support::image::OCI_MANIFEST, gzip, &["NEW=1"]));
    let (store, events) = (Store::new(), Events::default());
    load(&store, docker_archive(&old, &["app:1"]).bytes(), &Progress::none()).await.expect("loads");
    load(&store, docker_archive(&new, &["app:1"]).bytes(), &events.sink()).await.expect("loads");
    let said = format!("The image app:1 already exists, renaming the old one with ID {} to empty string", old.id());
    assert!(events.lines().iter().any(|line| line.contains(&said)));
    assert_eq!(store.store.resolve("app:1").expect("there").id, new.id());
    assert!(store.store.get(&old.id()).expect("there").tags.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_and_empty_archives_are_refused() {
    let whole = docker_archive(&TestImage::new(&layers()), &["app:1"]).bytes();
    for length in [700, 2000, 4000, whole.len() - 1500] {
        let error = refuse(whole[..length].to_vec()).await;
        assert!(
            error.starts_with("failed to read image archive") || error.contains("holds neither"),
            "{length}: {error}"
        );
    }
    let compressed = gzip(&whole);
    assert!(refuse(compressed[..compressed.len() - 20].to_vec()).await.starts_with("failed to read image archive"));
    assert_eq!(refuse(Vec::new()).await, "image archive holds neither manifest.json nor index.json");
    assert!(
        refuse(b"this is no archive at all, but long enough to be looked at closely".repeat(20))
            .await
            .contains("not a tar archive")
    );
    let store = Store::new();
    let legacy = load(&store, Archive::default().add("repositories", "{}").bytes(), &Progress::none())
        .await
        .expect_err("refused");
    assert_eq!(legacy.kind(), ErrorKind::Unsupported);
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_that_lie_are_refused() {
    let image = TestImage::new(&layers());
    let good = docker_archive(&image, &["app:1"]);
    let with = |change: fn(&mut Member)| {
        let mut archive = good.clone();
        archive.0.iter_mut().for_each(change);
        archive.bytes()
    };
    let error = refuse(with(|member| {
        if member.0 == "one/layer.tar" {
            member.1 = layer(&[("evil", b"x")])
        }
    }))
    .await;
    assert!(error.starts_with("failed to register layer: layer content is sha256:"), "{error}");
    let error = refuse(with(|member| {
        if member.0.len() > 64 {
            member.1.push(b' ')
        }
    }))
    .await;
    assert!(error.contains("image archive is malformed:") && error.contains(", not sha256:"), "{error}");
    let error = refuse(with(|member| {
        if member.0 == "two/layer.tar" {
            member.0 = "elsewhere".into()
        }
    }))
    .await;
    assert_eq!(error, "image archive is malformed: two/layer.tar is missing");
    let error = refuse(with(|member| {
        if member.0 == "manifest.json" {
            member.1 = b"{}".to_vec()
        }
    }))
    .await;
    assert!(error.starts_with("image archive is malformed: manifest.json: "), "{error}");
    let bad_tag = docker_archive(&image, &["App:1"]).bytes();
    assert!(refuse(bad_tag).await.starts_with("invalid tag \"App:1\": invalid reference format"));
    let climbing = good.clone().add("x", "x");
    let mut climbing = climbing.bytes();
    let header = climbing.len() - 1024 - 1024;
    climbing[header..header + 4].copy_from_slice(b"../x");
    let mut fixed = tar::Header::from_byte_slice(&climbing[header..header + 512]).clone();
    fixed.set_cksum();
    climbing[header..header + 512].copy_from_slice(fixed.as_bytes());
    assert!(refuse(climbing).await.contains("it is outside of the archive"));

    let mut oci = oci_layout(&image, "app:1");
    let last = oci.0.len() - 1;
    oci.0[last].1.push(b' ');
    assert!(refuse(oci.bytes()).await.contains("image archive is malformed: blobs/sha256/"));
}
