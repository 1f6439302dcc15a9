//! Mounts below a directory.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::error::LabError;

/// The mount points below `directory`, in the order in which they were made.
pub fn below(directory: &Path) -> Result<Vec<PathBuf>, LabError> {
    const TABLE: &str = "/proc/self/mountinfo";
    let table = fs::read_to_string(TABLE).map_err(LabError::file(Path::new(TABLE)))?;
    Ok(parse(&table).filter(|point| point.starts_with(directory) && point != directory).collect())
}

/// Unmounts everything below `directory`, the newest first.
pub fn remove(directory: &Path) -> Result<(), LabError> {
    for path in below(directory)?.into_iter().rev() {
        match umount2(&path, MntFlags::MNT_DETACH) {
            // gone with the one that it was on
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(LabError::Unmount { path, errno }),
        }
    }
    Ok(())
}

fn parse(table: &str) -> impl Iterator<Item = PathBuf> {
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape)
}

/// The kernel writes a space, a tab, a line end and a backslash as `\` and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = rest.get(1..4).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_whatever_their_name() {
        let table = "1 2 0:3 / /plain rw - tmpfs t rw\n4 2 0:5 / /with\\040space rw - tmpfs t rw\n";
        assert_eq!(parse(table).collect::<Vec<_>>(), [PathBuf::from("/plain"), PathBuf::from("/with space")]);
    }
}
