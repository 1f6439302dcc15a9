//! Root file systems of containers, mounted for real.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use shoal_image::{
    ChangeKind, Digest, ErrorKind, ImageStore, ImageUser, Progress, PullOptions, RegistryConfig, RemoveOptions,
};
use support::Store;
use support::image::{TestImage, layer};

async fn pull(store: &Store, layers: &[Vec<u8>]) -> Digest {
    let image = TestImage::new(layers);
    let id = image.id();
    let fake = image.serve_but(|_, _| None).await;
    store.store.pull(&fake.reference("app:1"), &PullOptions::default(), &Progress::none()).await.expect("pulls");
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_sees_its_images_layers_merged_and_writes_only_to_its_own() {
    let store = Store::new();
    let lower = layer(&[("etc/gone", b"gone"), ("etc/kept", b"kept"), ("dir/old", b"old"), ("both", b"lower")]);
    let upper = layer(&[("etc/.wh.gone", b""), ("dir/.wh..wh..opq", b""), ("dir/new", b"new"), ("both", b"upper")]);
    let id = pull(&store, &[lower, upper]).await;
    for container in ["one", "two"] {
        store.store.ensure_snapshot(container, &id).expect("made");
        store.store.ensure_snapshot(container, &id).expect("made already");
        store.store.ensure_mounted(container).expect("mounted");
    }
    let one = store.store.ensure_mounted("one").expect("mounted already").path;
    let two = store.store.ensure_mounted("two").expect("mounted already").path;
    assert!(!one.join("etc/gone").exists() && !one.join("dir/old").exists());
    let read = |path: &str| fs::read_to_string(one.join(path)).expect(path);
    assert_eq!((read("etc/kept"), read("dir/new"), read("both")), ("kept".into(), "new".into(), "upper".into()));
    assert_eq!(fs::metadata(&one).expect("there").mode() & 0o7777, 0o755);

    fs::write(one.join("both"), "changed!").expect("written");
    fs::create_dir(one.join("fresh")).expect("made");
    fs::write(one.join("fresh/file"), "12345").expect("written");
    fs::remove_file(one.join("etc/kept")).expect("removed");
    fs::write(one.join("passing"), "").expect("written");
    fs::remove_file(one.join("passing")).expect("removed");
    assert_eq!(fs::read_to_string(two.join("both")).expect("there"), "upper");
    assert!(two.join("etc/kept").exists());

    let changes = store.store.snapshot_changes("one").expect("lists");
    let changes: Vec<_> = changes.iter().map(|change| (change.path.as_str(), change.kind)).collect();
    use ChangeKind::{Added, Deleted, Modified};
    assert_eq!(
        changes,
        [("/both", Modified), ("/etc", Modified), ("/etc/kept", Deleted), ("/fresh", Added), ("/fresh/file", Added)]
    );
    assert_eq!(store.store.snapshot_size("one").expect("measures"), 8 + 5);
    assert_eq!(store.store.snapshot_size("two").expect("measures"), 0);

    store.store.ensure_unmounted("one").expect("unmounted");
    store.store.ensure_unmounted("one").expect("unmounted already");
    assert!(!one.join("both").exists());
    store.store.ensure_mounted("one").expect("mounted again");
    assert_eq!(read("both"), "changed!");
    for container in ["one", "two", "never"] {
        store.store.remove_snapshot(container).expect("removed");
    }
    assert!(store.store.snapshots().is_empty() && store.names("snapshots").is_empty());
    store.assert_only(2, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_layers_and_none_can_be_mounted() {
    let store = Store::new();
    let layers: Vec<Vec<u8>> = (0..200).map(|number| layer(&[(format!("f{number}").as_str(), b"x")])).collect();
    let many = pull(&store, &layers).await;
    store.store.ensure_snapshot("many", &many).expect("made");
    let rootfs = store.store.ensure_mounted("many").expect("mounted");
    assert_eq!(fs::read_dir(&rootfs.path).expect("list").count(), 205, "and those of the base");
    let none = pull(&store, &[]).await;
    store.store.ensure_snapshot("none", &none).expect("made");
    let rootfs = store.store.ensure_mounted("none").expect("mounted");
    fs::write(rootfs.path.join("x"), "x").expect("writable");
    for container in ["many", "none"] {
        store.store.remove_snapshot(container).expect("removed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_removed_by_force_stays_under_its_containers() {
    let store = Store::new();
    let id = pull(&store, &[layer(&[("file", b"still here")])]).await;
    store.store.ensure_snapshot("user", &id).expect("made");
    let user = ImageUser { container: "user".into(), image: id, running: false };
    store.store.remove(&id.hex(), RemoveOptions { force: true }, &[user]).await.expect("removed");
    assert!(store.store.get(&id).is_none());
    let rootfs = store.store.ensure_mounted("user").expect("mounted");
    assert_eq!(fs::read_to_string(rootfs.path.join("file")).expect("there"), "still here");
    store.assert_only(1, 1);
    store.store.remove_snapshot("user").expect("removed");
    store.assert_only(0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_opened_again_has_everything_and_only_that() {
    let store = Store::new();
    let id = pull(&store, &[layer(&[("file", b"content")])]).await;
    store.store.ensure_snapshot("user", &id).expect("made");
    let mounted = store.store.ensure_mounted("user").expect("mounted").path;
    fs::write(mounted.join("own"), "own").expect("written");
    let (root, number) = (store.root.clone(), store.names("layers")[0].clone());
    store.assert_only(1, 2);
    assert_eq!(fs::metadata(&root).expect("there").mode() & 0o777, 0o710, "set-user-id programs are out of reach");
    let open = || ImageStore::open(support::config(&root, RegistryConfig::default()));
    let error = open().err().expect("in use").to_string();
    assert!(error.ends_with("is in use by another process"), "{error}");
    let keep = store.close();

    // what a crash at any moment may leave
    for path in ["layers/999/etc", "tmp/snapshot-7/upper", "trash/x-3/deep/er"] {
        fs::create_dir_all(root.join(path)).expect("made");
    }
    for path in ["tmp/blob-4", "tmp/record-9", "blobs/sha256/0123", "layers/998"] {
        fs::write(root.join(path), "half-made").expect("written");
    }
    let store = Store { store: open().expect("opens"), root: root.clone(), dir: keep };
    store.assert_only(1, 2);
    assert_eq!(store.names("layers"), [number]);
    assert_eq!((store.store.list()[0].id, store.store.snapshots()), (id, vec!["user".to_owned()]));
    let rootfs = store.store.ensure_mounted("user").expect("still mounted");
    assert_eq!(fs::read_to_string(rootfs.path.join("own")).expect("there"), "own");
    store.store.remove_snapshot("user").expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_noticed_on_open() {
    let store = Store::new();
    let id = pull(&store, &[layer(&[("file", b"content")])]).await;
    let root = store.root.clone();
    let keep = store.close();
    let open = || ImageStore::open(support::config(&root, RegistryConfig::default()));
    fs::write(root.join("blobs/sha256").join(id.hex()), "{}").expect("written");
    let store = Store { store: open().expect("opens"), root: root.clone(), dir: keep };
    assert_eq!(store.store.list(), [], "an image whose configuration is damaged is gone, with its layers");
    store.assert_only(0, 0);
    let _keep = store.close();
    fs::write(root.join("images.json"), "{\"images\":").expect("written");
    let error = open().err().expect("refused").to_string();
    assert!(error.contains("images.json is damaged"), "{error}");
    assert_eq!(
        fs::read_to_string(root.join("images.json")).expect("there"),
        "{\"images\":",
        "and left for someone to look at"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_ids_images_and_file_systems_are_named() {
    let store = Store::new();
    let id = pull(&store, &[layer(&[("file", b"content")])]).await;
    for bad in ["", ".", "..", "a/b", "../x", &"x".repeat(200)] {
        assert_eq!(store.store.ensure_snapshot(bad, &id).expect_err("refused").kind(), ErrorKind::InvalidInput);
        assert_eq!(store.store.remove_snapshot(bad).expect_err("refused").kind(), ErrorKind::InvalidInput);
    }
    let error = store.store.ensure_snapshot("c", &Digest::of(b"none")).expect_err("refused");
    assert_eq!(error.to_string(), format!("No such image: {}", Digest::of(b"none")));
    assert_eq!(store.store.ensure_mounted("none").expect_err("refused").kind(), ErrorKind::NotFound);

    store.store.ensure_snapshot("c", &id).expect("made");
    let on_overlay = store.store.ensure_mounted("c").expect("mounted").path.join("data");
    let error = ImageStore::open(support::config(&on_overlay, RegistryConfig::default())).err().expect("refused");
    assert!(error.to_string().contains("cannot hold overlay mounts (is it an overlay itself?)"), "{error}");
    store.store.remove_snapshot("c").expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_tree_is_out_of_the_way_at_once() {
    let store = Store::new();
    let id = pull(&store, &[layer(&[("file", b"content")])]).await;
    store.store.ensure_snapshot("c", &id).expect("made");
    let root = store.store.ensure_mounted("c").expect("mounted").path;
    for number in 0..2000 {
        fs::write(root.join(format!("f{number}")), "x").expect("written");
    }
    fs::set_permissions(&root, fs::Permissions::from_mode(0o000)).expect("set");
    store.store.remove_snapshot("c").expect("removed");
    assert!(store.names("snapshots").is_empty());
    store.store.ensure_snapshot("c", &id).expect("the id is free again");
    store.store.remove_snapshot("c").expect("removed");
    store.assert_only(1, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_a_power_cut_may_have_torn_are_not_trusted() {
    let store = Store::new();
    pull(&store, &[layer(&[("file", b"content")])]).await;
    let root = store.root.clone();
    let keep = store.close();
    let mut record: serde_json::Value =
        serde_json::from_slice(&fs::read(root.join("images.json")).expect("there")).expect("json");
    for layer in record["layers"].as_object_mut().expect("layers").values_mut() {
        layer["unsynced"] = "the boot before".into();
    }
    fs::write(root.join("images.json"), record.to_string()).expect("written");
    let store = ImageStore::open(support::config(&root, RegistryConfig::default())).expect("opens");
    let store = Store { store, root, dir: keep };
    assert_eq!(store.store.list(), [], "pulled again rather than run with holes");
    store.assert_only(0, 0);
}
