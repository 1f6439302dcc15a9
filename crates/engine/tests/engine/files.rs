//! Volumes, binds, images.

use bollard_stubs::models::{HostConfig, Mount, MountType, MountVolumeOptions, VolumeCreateRequest};
use shoal_engine::{ErrorKind, ImageListOptions};

use crate::support::{on_machine, shell, with_host};

fn binds(list: &[&str]) -> HostConfig {
    HostConfig {
        network_mode: Some("none".into()),
        binds: Some(list.iter().map(|s| (*s).to_owned()).collect()),
        ..HostConfig::default()
    }
}

#[test]
fn a_new_volume_has_what_the_image_has_there_and_outlives_containers() {
    on_machine(|machine| async move {
        let (_, log) = machine
            .run(
                "first",
                with_host("cat /data/from-image; echo more > /data/more; stat -c %a /data", binds(&["vol:/data"])),
            )
            .await;
        assert_eq!(log, "content\n750\n");
        let (_, log) = machine.run("second", with_host("ls /data; touch /data/x 2>&1", binds(&["vol:/data:ro"]))).await;
        assert!(log.starts_with("from-image\nmore\n") && log.contains("Read-only file system"), "{log}");
        let error = machine.engine.remove_volume("vol", false).await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Conflict && error.to_string().starts_with("remove vol: volume is in use - ["),
            "{error}"
        );
        for name in ["first", "second"] {
            machine.engine.remove(name, Default::default()).await.unwrap();
        }
        machine.engine.remove_volume("vol", false).await.unwrap();
        assert_eq!(machine.engine.inspect_volume("vol").await.unwrap_err().to_string(), "get vol: no such volume");
    });
}

#[test]
fn binds_and_mounts_do_what_they_say() {
    on_machine(|machine| async move {
        std::fs::write(machine.path("file"), "from host\n").unwrap();
        let made = machine.path("made/by/engine");
        let list = [format!("{}:/f:ro", machine.path("file").display()), format!("{}:/made", made.display())];
        let nocopy = Mount {
            typ: Some(MountType::VOLUME),
            target: Some("/data".into()),
            volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..Default::default() }),
            ..Mount::default()
        };
        let host = HostConfig { mounts: Some(vec![nocopy]), ..binds(&[&list[0], &list[1]]) };
        let (_, log) =
            machine.run("box", with_host("cat /f; echo x > /f; echo y > /made/y; ls /data | wc -l", host)).await;
        assert!(
            log.starts_with("from host\n")
                && log.contains("Read-only file system")
                && log.lines().any(|line| line == "0"),
            "{log}"
        );
        assert_eq!(std::fs::read_to_string(made.join("y")).unwrap(), "y\n");
        let mounts = machine.inspect("box").await.mounts.unwrap();
        assert_eq!(mounts.len(), 3);
        let bind = mounts.iter().find(|m| m.destination.as_deref() == Some("/f")).unwrap();
        assert_eq!(
            (bind.rw, bind.mode.as_deref(), bind.propagation.as_deref()),
            (Some(false), Some("ro"), Some("rprivate"))
        );
    });
}

#[test]
fn volumes_are_made_listed_and_pruned() {
    on_machine(|machine| async move {
        let engine = &machine.engine;
        let named = VolumeCreateRequest {
            name: Some("named".into()),
            labels: Some([("k".to_owned(), "v".to_owned())].into()),
            ..Default::default()
        };
        engine.create_volume(named).await.unwrap();
        let anonymous = engine.create_volume(VolumeCreateRequest::default()).await.unwrap();
        let filter = |name: &str, value: &str| [(name.to_owned(), vec![value.to_owned()])].into();
        let names = |list: bollard_stubs::models::VolumeListResponse| -> Vec<String> {
            list.volumes.unwrap().into_iter().map(|v| v.name).collect()
        };
        assert_eq!(names(engine.list_volumes(&filter("label", "k=v")).await.unwrap()), ["named"]);
        assert_eq!(engine.prune_volumes(&Default::default()).await.unwrap().volumes_deleted.unwrap(), [anonymous.name]);
        assert_eq!(names(engine.list_volumes(&filter("dangling", "true")).await.unwrap()), ["named"]);
        let bad = VolumeCreateRequest { name: Some("a/b".into()), ..Default::default() };
        assert_eq!(engine.create_volume(bad).await.unwrap_err().kind(), ErrorKind::InvalidParameter);
        let nfs = VolumeCreateRequest {
            driver_opts: Some([("type".to_owned(), "nfs".to_owned())].into()),
            ..Default::default()
        };
        assert_eq!(engine.create_volume(nfs).await.unwrap_err().kind(), ErrorKind::Unsupported);
    });
}

#[test]
fn images_are_tagged_listed_and_protected_by_their_containers() {
    on_machine(|machine| async move {
        let engine = &machine.engine;
        engine.tag("busybox", "my/tool", Some("1")).await.unwrap();
        assert_eq!(engine.inspect_image("my/tool:1").await.unwrap().repo_tags.unwrap().len(), 2);
        let by = |value: &str| ImageListOptions {
            filters: [("reference".to_owned(), vec![value.to_owned()])].into(),
            ..Default::default()
        };
        let listed = engine.list_images(by("my/*")).await.unwrap();
        assert_eq!(listed[0].repo_tags, ["my/tool:1"]);
        engine.create(Some("user"), None, shell("true")).await.unwrap();
        assert_eq!(engine.remove_image("my/tool:1", false, true).await.unwrap().len(), 1);
        let error = engine.remove_image("busybox", false, true).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        engine.remove("user", Default::default()).await.unwrap();
        engine.remove_image("busybox", false, true).await.unwrap();
        assert_eq!(engine.inspect_image("busybox").await.unwrap_err().to_string(), "No such image: busybox:latest");
        let usage = engine.disk_usage().await.unwrap();
        assert_eq!(usage["LayersSize"], 0);
    });
}
