//! Mounts of a container: from `Binds`, `Mounts`, `Tmpfs` and `Volumes` of a request to one list. Pure.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use bollard_stubs::models::{
    ContainerConfig, HostConfig, Mount, MountBindOptionsPropagationEnum as Propagation, MountType,
};

use crate::container::{MountKind, MountSpec};
use crate::error::{Error, Result};
use crate::names::check_volume_name;

/// All mounts of a request in the order of their destinations, so that one below another comes after it. `inherited` are
/// those of `--volumes-from`; what the request itself says comes before them.
pub fn collect(config: &ContainerConfig, host: &HostConfig, inherited: Vec<MountSpec>) -> Result<Vec<MountSpec>> {
    let mut all: BTreeMap<String, MountSpec> = BTreeMap::new();
    for mount in inherited {
        all.insert(mount.destination.clone(), mount);
    }
    let mut own: BTreeMap<String, MountSpec> = BTreeMap::new();
    let mut add = |mount: MountSpec| match own.insert(mount.destination.clone(), mount) {
        Some(twice) => Err(Error::invalid(format!("Duplicate mount point: {}", twice.destination))),
        None => Ok(()),
    };
    for bind in host.binds.iter().flatten() {
        add(parse_bind(bind)?)?;
    }
    for mount in host.mounts.iter().flatten() {
        add(parse_mount(mount)?)?;
    }
    for (destination, options) in host.tmpfs.iter().flatten() {
        add(parse_tmpfs(destination, options)?)?;
    }
    all.extend(own);
    for destination in config.volumes.iter().flatten() {
        let destination = clean_destination(destination, || format!("invalid volume: '{destination}'"))?;
        all.entry(destination.clone()).or_insert_with(|| MountSpec {
            kind: MountKind::Volume,
            destination,
            rw: true,
            copy: true,
            anonymous: true,
            ..MountSpec::default()
        });
    }
    Ok(all.into_values().collect())
}

/// A path in the container, absolute and without `.` and `..`.
pub fn clean_destination(text: &str, what: impl Fn() -> String) -> Result<String> {
    let path = clean(text);
    if !text.starts_with('/') {
        return Err(Error::invalid(format!("{}: mount path must be absolute", what())));
    }
    if path == "/" {
        return Err(Error::invalid(format!("{}: destination can't be '/'", what())));
    }
    Ok(path)
}

/// An absolute path in its shortest form.
pub fn clean(text: &str) -> String {
    let mut path = PathBuf::from("/");
    for part in Path::new(text).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                path.pop();
            }
            _ => {}
        }
    }
    path.to_string_lossy().into_owned()
}

/// `SOURCE:DESTINATION[:MODE]`, `DESTINATION`, `NAME:DESTINATION[:MODE]`.
fn parse_bind(text: &str) -> Result<MountSpec> {
    let invalid = || Error::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, mode) = match parts[..] {
        [destination] => ("", destination, ""),
        [source, destination] if !is_mode(destination) => (source, destination, ""),
        [destination, mode] => ("", destination, mode),
        [source, destination, mode] => (source, destination, mode),
        _ => return Err(invalid()),
    };
    if destination.is_empty() || (source.is_empty() && parts.len() > 2) {
        return Err(invalid());
    }
    let what = || {
        format!("invalid volume specification: '{text}': invalid mount config for type \"{}\"", kind_of(source).word())
    };
    let mut mount = MountSpec {
        kind: kind_of(source),
        destination: clean_destination(destination, || format!("invalid volume specification: '{text}'"))?,
        mode: mode.to_owned(),
        rw: true,
        copy: true,
        ..MountSpec::default()
    };
    match mount.kind {
        MountKind::Bind => {
            mount.source = clean(source);
            mount.create_source = true;
            mount.copy = false;
        }
        _ if source.is_empty() => mount.anonymous = true,
        _ => {
            check_volume_name(source)?;
            mount.volume = source.to_owned();
        }
    }
    apply_mode(&mut mount, mode).map_err(|bad| Error::invalid(format!("{}: invalid mode: {bad}", what())))?;
    Ok(mount)
}

fn kind_of(source: &str) -> MountKind {
    if source.starts_with('/') { MountKind::Bind } else { MountKind::Volume }
}

fn is_mode(text: &str) -> bool {
    !text.starts_with('/') && apply_mode(&mut MountSpec::default(), text).is_ok()
}

/// Applies `ro,rslave,nocopy,z`; the error is the mode itself. SELinux labels mean nothing on a host without SELinux, as
/// in Docker; consistency is a word for Docker Desktop only.
fn apply_mode(mount: &mut MountSpec, mode: &str) -> Result<(), String> {
    let mut seen_access = false;
    for word in mode.split(',').filter(|_| !mode.is_empty()) {
        match word {
            "ro" | "rw" if seen_access => return Err(mode.to_owned()),
            "ro" | "rw" => {
                mount.rw = word == "rw";
                seen_access = true;
            }
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" if mount.propagation.is_empty() => {
                mount.propagation = word.to_owned();
            }
            "nocopy" => mount.copy = false,
            "z" | "Z" | "consistent" | "cached" | "delegated" | "default" => {}
            _ => return Err(mode.to_owned()),
        }
    }
    if !mount.propagation.is_empty() && mount.kind == MountKind::Volume && !mount.source.is_empty() {
        return Err(mode.to_owned());
    }
    Ok(())
}

/// An entry of `Mounts`.
fn parse_mount(mount: &Mount) -> Result<MountSpec> {
    let typ = mount.typ.unwrap_or(MountType::VOLUME);
    let kind = match typ {
        MountType::BIND => MountKind::Bind,
        MountType::VOLUME => MountKind::Volume,
        MountType::TMPFS => MountKind::Tmpfs,
        other => return Err(Error::unsupported(format!("the mount type \"{other}\""))),
    };
    let fail = |why: String| Error::invalid(format!("invalid mount config for type \"{}\": {why}", kind.word()));
    let target = mount.target.as_deref().unwrap_or_default();
    if target.is_empty() {
        return Err(fail("field Target must not be empty".to_owned()));
    }
    let destination = clean_destination(target, || format!("invalid mount config for type \"{}\"", kind.word()))?;
    check_foreign_options(mount, kind).map_err(fail)?;
    match mount.consistency.as_deref().unwrap_or_default() {
        "" | "default" | "consistent" | "cached" | "delegated" => {}
        other => return Err(fail(format!("invalid consistency {other:?}"))),
    }
    let base = MountSpec {
        kind,
        destination,
        rw: !mount.read_only.unwrap_or_default(),
        from_list: true,
        ..MountSpec::default()
    };
    let source = mount.source.as_deref().unwrap_or_default();
    match kind {
        MountKind::Bind => parse_bind_mount(mount, source, base),
        MountKind::Volume => parse_volume_mount(mount, source, base),
        MountKind::Tmpfs => parse_tmpfs_mount(mount, source, base),
    }
}

fn check_foreign_options(mount: &Mount, kind: MountKind) -> Result<(), String> {
    let foreign = [
        (mount.bind_options.is_some() && kind != MountKind::Bind, "BindOptions"),
        (mount.volume_options.is_some() && kind != MountKind::Volume, "VolumeOptions"),
        (mount.tmpfs_options.is_some() && kind != MountKind::Tmpfs, "TmpfsOptions"),
        (mount.image_options.is_some(), "ImageOptions"),
    ];
    match foreign.iter().find(|(there, _)| *there) {
        Some((_, name)) => Err(format!("field {name} must not be specified")),
        None => Ok(()),
    }
}

fn parse_bind_mount(mount: &Mount, source: &str, base: MountSpec) -> Result<MountSpec> {
    let fail = |why: String| Error::invalid(format!("invalid mount config for type \"bind\": {why}"));
    if source.is_empty() {
        return Err(fail("field Source must not be empty".to_owned()));
    }
    if !source.starts_with('/') {
        return Err(fail(format!("invalid mount path: '{source}' mount path must be absolute")));
    }
    let options = mount.bind_options.clone().unwrap_or_default();
    let propagation = match options.propagation {
        None | Some(Propagation::EMPTY) => String::new(),
        Some(word) => word.to_string(),
    };
    let on = |flag: Option<bool>| flag.unwrap_or_default();
    if on(options.read_only_force_recursive)
        && (on(options.read_only_non_recursive) || base.rw || propagation != "rprivate")
    {
        return Err(fail(
            "ReadOnlyForceRecursive requires ReadOnly, the propagation rprivate and no ReadOnlyNonRecursive".to_owned(),
        ));
    }
    Ok(MountSpec {
        source: clean(source),
        propagation,
        non_recursive: on(options.non_recursive),
        read_only_non_recursive: on(options.read_only_non_recursive),
        create_source: on(options.create_mountpoint),
        ..base
    })
}

fn parse_volume_mount(mount: &Mount, source: &str, base: MountSpec) -> Result<MountSpec> {
    let options = mount.volume_options.clone().unwrap_or_default();
    if !source.is_empty() {
        check_volume_name(source)?;
    }
    if options.subpath.as_deref().is_some_and(|path| !path.is_empty()) {
        return Err(Error::unsupported("the volume option Subpath"));
    }
    let driver = options.driver_config.unwrap_or_default();
    if !matches!(driver.name.as_deref().unwrap_or_default(), "" | "local") {
        return Err(Error::unsupported(format!("the volume driver {:?}", driver.name.unwrap_or_default())));
    }
    if driver.options.is_some_and(|options| !options.is_empty()) {
        return Err(Error::unsupported("options of the volume driver \"local\""));
    }
    let anonymous = source.is_empty();
    Ok(MountSpec { volume: source.to_owned(), copy: !options.no_copy.unwrap_or_default(), anonymous, ..base })
}

fn parse_tmpfs_mount(mount: &Mount, source: &str, base: MountSpec) -> Result<MountSpec> {
    let fail = |why: &str| Error::invalid(format!("invalid mount config for type \"tmpfs\": {why}"));
    if !source.is_empty() {
        return Err(fail("field Source must not be specified"));
    }
    let options = mount.tmpfs_options.clone().unwrap_or_default();
    let mut tmpfs: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec();
    if let Some(size) = options.size_bytes.filter(|size| *size != 0) {
        if size < 0 {
            return Err(fail("a negative size is invalid"));
        }
        tmpfs.push(format!("size={size}"));
    }
    if let Some(mode) = options.mode.filter(|mode| *mode != 0) {
        tmpfs.push(format!("mode={mode:o}"));
    }
    for option in options.options.iter().flatten() {
        match &option[..] {
            [flag] if matches!(flag.as_str(), "exec" | "noexec") => {
                tmpfs.retain(|word| word != "exec" && word != "noexec");
                tmpfs.push(flag.clone());
            }
            other => return Err(fail(&format!("invalid option: {other:?}"))),
        }
    }
    Ok(MountSpec { tmpfs, ..base })
}

/// `--tmpfs /path:options`.
fn parse_tmpfs(destination: &str, options: &str) -> Result<MountSpec> {
    let destination = clean_destination(destination, || format!("invalid tmpfs mount '{destination}'"))?;
    let mut words: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec();
    for word in options.split(',').filter(|word| !word.is_empty()) {
        let name = word.split('=').next().unwrap_or_default();
        let opposite = match name {
            "exec" => "noexec",
            "suid" => "nosuid",
            "dev" => "nodev",
            "noexec" | "nosuid" | "nodev" | "ro" | "rw" | "sync" | "async" | "atime" | "noatime" | "diratime"
            | "nodiratime" | "relatime" | "norelatime" | "strictatime" | "nostrictatime" | "size" | "mode" | "uid"
            | "gid" | "nr_inodes" | "nr_blocks" | "mpol" => "",
            _ => return Err(Error::invalid(format!("invalid tmpfs option [{word:?}]"))),
        };
        words.retain(|have| have != opposite && have != word);
        words.push(word.to_owned());
    }
    let rw = !words.iter().any(|word| word == "ro");
    Ok(MountSpec { kind: MountKind::Tmpfs, destination, rw, tmpfs: words, ..MountSpec::default() })
}

#[cfg(test)]
#[path = "mounts_tests.rs"]
mod tests;
