use bollard_stubs::models::{MountBindOptions, MountTmpfsOptions, MountVolumeOptions};

use super::*;

fn of(host: HostConfig) -> Result<Vec<MountSpec>> {
    collect(&ContainerConfig::default(), &host, Vec::new())
}

fn bind(text: &str) -> Result<MountSpec> {
    of(HostConfig { binds: Some(vec![text.to_owned()]), ..HostConfig::default() }).map(|mut all| all.remove(0))
}

fn mount(mount: Mount) -> Result<MountSpec> {
    of(HostConfig { mounts: Some(vec![mount]), ..HostConfig::default() }).map(|mut all| all.remove(0))
}

#[test]
fn binds_name_a_path_a_volume_or_nothing() {
    let path = bind("/a/../b:/c/./d:ro,rslave").unwrap();
    assert_eq!((path.kind, path.source.as_str(), path.destination.as_str()), (MountKind::Bind, "/b", "/c/d"));
    assert_eq!((path.rw, path.propagation.as_str(), path.create_source), (false, "rslave", true));
    let volume = bind("data:/c").unwrap();
    assert_eq!(
        (volume.kind, volume.volume.as_str(), volume.copy, volume.anonymous),
        (MountKind::Volume, "data", true, false)
    );
    assert!(bind("/c").unwrap().anonymous);
    assert!(!bind("data:/c:nocopy,ro").unwrap().copy);
}

#[test]
fn malformed_binds_are_refused_in_dockers_words() {
    for (text, error) in [
        ("data:c", "invalid volume specification: 'data:c': mount path must be absolute"),
        ("/a:/", "invalid volume specification: '/a:/': destination can't be '/'"),
        ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
        (
            "/a:/b:what",
            "invalid volume specification: '/a:/b:what': invalid mount config for type \"bind\": invalid mode: what",
        ),
        (
            "/a:/b:ro,rw",
            "invalid volume specification: '/a:/b:ro,rw': invalid mount config for type \"bind\": invalid mode: ro,rw",
        ),
    ] {
        assert_eq!(bind(text).unwrap_err().to_string(), error);
    }
    assert!(bind("a/b:/c").unwrap_err().to_string().contains("includes invalid characters for a local volume name"));
    let twice = HostConfig { binds: Some(vec!["/a:/c".into(), "b2:/c".into()]), ..HostConfig::default() };
    assert_eq!(of(twice).unwrap_err().to_string(), "Duplicate mount point: /c");
}

#[test]
fn mounts_are_checked_field_by_field() {
    let bind = |source: &str, target: &str| Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_owned()),
        target: Some(target.to_owned()),
        ..Mount::default()
    };
    let read_only = mount(Mount { read_only: Some(true), ..bind("/a", "/b") }).unwrap();
    assert!(!read_only.rw && !read_only.create_source && read_only.from_list);
    for (given, error) in [
        (bind("", "/b"), "invalid mount config for type \"bind\": field Source must not be empty"),
        (bind("/a", ""), "invalid mount config for type \"bind\": field Target must not be empty"),
        (
            bind("a", "/b"),
            "invalid mount config for type \"bind\": invalid mount path: 'a' mount path must be absolute",
        ),
        (
            Mount { tmpfs_options: Some(MountTmpfsOptions::default()), ..bind("/a", "/b") },
            "invalid mount config for type \"bind\": field TmpfsOptions must not be specified",
        ),
        (
            Mount { typ: Some(MountType::TMPFS), ..bind("/a", "/b") },
            "invalid mount config for type \"tmpfs\": field Source must not be specified",
        ),
        (
            Mount { typ: Some(MountType::CLUSTER), ..bind("x1", "/b") },
            "the mount type \"cluster\" is not supported by Shoal yet",
        ),
        (
            Mount {
                typ: Some(MountType::VOLUME),
                volume_options: Some(MountVolumeOptions { subpath: Some("x".into()), ..Default::default() }),
                ..bind("data", "/b")
            },
            "the volume option Subpath is not supported by Shoal yet",
        ),
    ] {
        assert_eq!(mount(given).unwrap_err().to_string(), error);
    }
    let options = MountBindOptions { create_mountpoint: Some(true), non_recursive: Some(true), ..Default::default() };
    let made = mount(Mount { bind_options: Some(options), ..bind("/a", "/b") }).unwrap();
    assert!(made.create_source && made.non_recursive);
}

#[test]
fn tmpfs_has_safe_defaults_that_can_be_overridden() {
    let of_text = |text: &str| {
        let tmpfs = Some([("/run".to_owned(), text.to_owned())].into());
        of(HostConfig { tmpfs, ..HostConfig::default() })
    };
    assert_eq!(of_text("").unwrap()[0].tmpfs, ["noexec", "nosuid", "nodev"]);
    assert_eq!(of_text("size=1m,exec").unwrap()[0].tmpfs, ["nosuid", "nodev", "size=1m", "exec"]);
    assert!(of_text("bogus").is_err());
    let options = MountTmpfsOptions { size_bytes: Some(4096), mode: Some(0o1777), ..Default::default() };
    let made = mount(Mount {
        typ: Some(MountType::TMPFS),
        target: Some("/t".into()),
        tmpfs_options: Some(options),
        ..Mount::default()
    });
    assert_eq!(made.unwrap().tmpfs, ["noexec", "nosuid", "nodev", "size=4096", "mode=1777"]);
}

#[test]
fn declared_volumes_give_way_to_what_the_request_mounts_there() {
    let config = ContainerConfig { volumes: Some(vec!["/data".into(), "/other".into()]), ..Default::default() };
    let host = HostConfig { binds: Some(vec!["mine:/data".into()]), ..Default::default() };
    let inherited = vec![MountSpec { destination: "/data".into(), volume: "theirs".into(), ..MountSpec::default() }];
    let all = collect(&config, &host, inherited).unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].volume.as_str(), all[1].anonymous), ("mine", true));
}
