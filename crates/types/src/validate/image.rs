//! Image references, as far as a service spec needs them checked (the grammar of the distribution project).

use std::sync::LazyLock;

use regex::Regex;

const NAME_MAX: usize = 255;

static REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
    let label = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
    let domain = format!(r"(?:{label}(?:\.{label})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?");
    let component = "[a-z0-9]+(?:(?:[.]|_|__|-+)[a-z0-9]+)*";
    let digest = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
    let text = format!(
        r"^(?P<name>(?:(?P<domain>{domain})/)?{component}(?:/{component})*)(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@(?P<digest>{digest}))?$"
    );
    Regex::new(&text).expect("a constant expression")
});

/// Whether `text` refers to an image by name, with or without a registry, a tag and a digest.
pub fn is_image_reference(text: &str) -> bool {
    // 64 hexadecimal digits are an image's identifier, never a name
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()) {
        return false;
    }
    let Some(parts) = REFERENCE.captures(text) else { return false };
    let name = &parts["name"];
    let domain = parts.name("domain").map(|d| d.as_str());
    let digest = parts.name("digest").is_none_or(|d| is_digest(d.as_str()));
    // what comes before the first slash is a registry only if it looks like one, else part of the path
    let path = domain.is_none_or(|d| {
        d.contains(['.', ':']) || d == "localhost" || d.bytes().any(|b| b.is_ascii_uppercase()) || is_component(d)
    });
    name.len() <= NAME_MAX && digest && path
}

fn is_component(text: &str) -> bool {
    !text.contains("---") && !text.starts_with('-') && !text.ends_with('-')
}

/// The algorithms that Docker knows have digests of one length, in lower case.
fn is_digest(digest: &str) -> bool {
    let (algorithm, hex) = digest.split_once(':').unwrap_or((digest, ""));
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length && !hex.bytes().any(|b| b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_and_without_registry_tag_and_digest_are_references() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for text in [
            "busybox",
            "busybox:1.36",
            "library/busybox",
            "a/b/c:latest",
            "localhost:5000/a__b/c-d.e",
            "[::1]:5000/x",
            "Registry.Example/x",
            "localhost/x",
            &format!("x@{digest}"),
            &format!("r.io/x:t@{digest}"),
            &format!("sha256:{}", "0a".repeat(32)),
            "0123456789ab",
        ] {
            assert!(is_image_reference(text), "{text}");
        }
    }

    #[test]
    fn anything_else_is_not() {
        for text in [
            "",
            "UPPER",
            "a/B",
            "a b",
            ":tag",
            "x:",
            "x:bad tag",
            "x@sha256:abc",
            "x@md5:0123456789abcdef0123456789abcdef",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a..b",
            "https://x/y",
            "x:t:u",
            &"0a".repeat(32),
            &"a".repeat(256),
            &format!("x:{}", "t".repeat(129)),
        ] {
            assert!(!is_image_reference(text), "{text}");
        }
    }
}
