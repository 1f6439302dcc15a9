//! Who a container's process is: user and group names of the image, looked up in its own `/etc/passwd` and `/etc/group`.

use std::path::Path;

use crate::error::{Error, Result};
use crate::rootfs;

/// No account file is larger; one that is, is an attack on the daemon's memory.
const MAX_FILE: u64 = 4 << 20;

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User.
    pub uid: u32,
    /// First group.
    pub gid: u32,
    /// Supplementary ones, the first is `gid`.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

/// Looks a user up in a root file system.
pub fn resolve_in(root: &Path, user: &str, add: &[String]) -> Result<User> {
    let read = |path: &str| rootfs::read(root, path, MAX_FILE).map_err(Error::at("read", root.join(path)));
    let (passwd, group) = (read("etc/passwd")?, read("etc/group")?);
    resolve(&passwd, &group, user, add)
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (&name, uid, gid) = (fields.first()?, fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
        Some(Account { name, uid, gid, home: fields.get(5).copied().unwrap_or_default() })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let members = fields.get(3).copied().unwrap_or_default().split(',').filter(|m| !m.is_empty()).collect();
        Some(Group { name: fields.first()?, gid: fields.get(2)?.parse().ok()?, members })
    })
}

/// `user`, `uid`, `user:group`, …; empty is root. Numbers need no entry, names do.
fn resolve(passwd: &str, group: &str, text: &str, add: &[String]) -> Result<User> {
    let (user, wanted_group) = text.split_once(':').unwrap_or((text, ""));
    let number = user.parse::<u32>().ok().filter(|uid| *uid <= i32::MAX as u32);
    let entry = match user {
        "" => accounts(passwd).find(|a| a.uid == 0),
        // a name of digits is a name first
        _ => accounts(passwd).find(|a| a.name == user).or_else(|| accounts(passwd).find(|a| Some(a.uid) == number)),
    };
    let uid = match (&entry, user, number) {
        (Some(entry), ..) => entry.uid,
        (None, "", _) => 0,
        (None, _, Some(uid)) => uid,
        (None, ..) => {
            return Err(Error::invalid(format!("unable to find user {user}: no matching entries in passwd file")));
        }
    };
    let gid = match wanted_group {
        "" => entry.as_ref().map_or(0, |entry| entry.gid),
        name => find_group(group, name)
            .ok_or_else(|| Error::invalid(format!("unable to find group {name}: no matching entries in group file")))?,
    };
    let mut all = vec![gid];
    let mut push = |gid: u32| {
        if !all.contains(&gid) {
            all.push(gid);
        }
    };
    if let Some(entry) = entry.as_ref().filter(|_| wanted_group.is_empty()) {
        groups(group).filter(|g| g.members.contains(&entry.name)).for_each(|g| push(g.gid));
    }
    for name in add {
        push(find_group(group, name).ok_or_else(|| Error::invalid(format!("Unable to find group {name}")))?);
    }
    let home = entry.map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or("/");
    Ok(User { uid, gid, groups: all, home: home.to_owned() })
}

fn find_group(group: &str, text: &str) -> Option<u32> {
    let number = text.parse::<u32>().ok().filter(|gid| *gid <= i32::MAX as u32);
    groups(group).find(|g| g.name == text).map(|g| g.gid).or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34::/srv:/bin/false\n7:x:70:70::/seven:\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\ndocker:x:999:web,other\naudio:x:29:web\n";

    fn user(text: &str, add: &[&str]) -> Result<User> {
        resolve(PASSWD, GROUP, text, &add.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn names_and_numbers_as_docker_reads_them() {
        let web = user("web", &[]).unwrap();
        assert_eq!((web.uid, web.gid, web.groups, web.home.as_str()), (33, 34, vec![34, 999, 29], "/srv"));
        assert_eq!(user("33", &[]).unwrap().groups, [34, 999, 29], "by number the same entry");
        assert_eq!(user("", &["audio", "5"]).unwrap().groups, [0, 29, 5]);
        let explicit = user("web:docker", &[]).unwrap();
        assert_eq!((explicit.gid, explicit.groups), (999, vec![999]), "an explicit group is the only one");
        let unknown = user("1234:5678", &[]).unwrap();
        assert_eq!((unknown.uid, unknown.gid, unknown.home.as_str()), (1234, 5678, "/"));
        assert_eq!(user("7", &[]).unwrap().uid, 70, "a name of digits is a name first");
    }

    #[test]
    fn unknown_names_are_refused_in_dockers_words() {
        for (text, add, error) in [
            ("nosuch", &[][..], "unable to find user nosuch: no matching entries in passwd file"),
            ("web:nosuch", &[], "unable to find group nosuch: no matching entries in group file"),
            ("web", &["nosuch"], "Unable to find group nosuch"),
            ("-1", &[], "unable to find user -1: no matching entries in passwd file"),
        ] {
            assert_eq!(user(text, add).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn links_of_the_image_do_not_lead_to_the_hosts_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/../../../../etc/passwd", dir.path().join("etc/passwd")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("etc/group"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let user = resolve_in(dir.path(), "", &[]);
        // the link names itself inside the root: a loop, never the host's file
        assert!(user.is_err());
        std::fs::remove_file(dir.path().join("etc/passwd")).unwrap();
        assert_eq!(resolve_in(dir.path(), "", &[]).unwrap().uid, 0, "a pipe is no account file");
    }
}
