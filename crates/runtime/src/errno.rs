//! Error numbers in the words that Docker's clients know, which are Go's.

use nix::errno::Errno;

/// `ENOENT` → `no such file or directory`.
pub(crate) fn text(errno: Errno) -> String {
    let desc = errno.desc();
    let mut chars = desc.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => format!("errno {}", errno as i32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_clients_match_on() {
        assert_eq!(text(Errno::ENOENT), "no such file or directory");
        assert_eq!(text(Errno::EACCES), "permission denied");
        assert_eq!(text(Errno::EISDIR), "is a directory");
        assert_eq!(text(Errno::ENOEXEC), "exec format error");
    }
}
