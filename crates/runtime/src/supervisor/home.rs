//! `HOME` for a process whose environment does not name it.
//!
//! Done here so that the container library finds it set: it would ask the C library, which in a static binary loads
//! shared objects, and by then they would be the container's.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use libcontainer::oci_spec::runtime::Process;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Adds `HOME` from the container's `/etc/passwd`, or `/`.
pub(super) fn ensure_home(process: &mut Process, root: &Path) {
    let uid = process.user().uid();
    let env = process.env_mut().get_or_insert_default();
    if !env.iter().any(|entry| entry.strip_prefix("HOME=").is_some_and(|home| !home.is_empty())) {
        env.retain(|entry| !entry.starts_with("HOME="));
        env.push(format!("HOME={}", home(root, uid).unwrap_or_else(|| "/".to_owned())));
    }
}

fn home(root: &Path, uid: u32) -> Option<String> {
    let root = File::open(root).ok()?;
    // links in the container lead to the container
    let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let passwd = openat2(&root, "etc/passwd", how).ok()?;
    BufReader::new(File::from(passwd)).lines().map_while(Result::ok).find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let found = fields.get(2)?.parse() == Ok(uid);
        fields.get(5).filter(|home| found && !home.is_empty()).map(|&home| home.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn home_comes_from_the_containers_own_file_even_through_an_absolute_link() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("users"), "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/srv/web:/bin/sh\n").unwrap();
        symlink("/users", dir.path().join("etc/passwd")).unwrap();
        assert_eq!(home(dir.path(), 1000).as_deref(), Some("/srv/web"));
        assert_eq!(home(dir.path(), 7), None);
        let mut process = Process::default();
        process.set_env(Some(vec!["HOME=/set".into()]));
        ensure_home(&mut process, dir.path());
        assert_eq!(process.env().as_deref().unwrap(), ["HOME=/set"]);
    }
}
