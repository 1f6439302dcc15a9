//! The grammar of a reference's parts, each as a predicate. Pure.

/// A reference without its domain, cut at its separators.
pub(super) struct Parts<'a> {
    pub path: &'a str,
    pub tag: Option<&'a str>,
    pub digest: Option<&'a str>,
}

/// Cuts `path[:tag][@digest]`. The parts are not checked.
pub(super) fn split(text: &str) -> Option<Parts<'_>> {
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    let (path, tag) = match name.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (name, None),
    };
    (!path.is_empty()).then_some(Parts { path, tag, digest })
}

/// `host[:port]`, where the host is a name, an IPv4 address or a bracketed IPv6 address.
pub(super) fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rfind(':') {
        Some(colon) if !text.ends_with(']') => (&text[..colon], Some(&text[colon + 1..])),
        _ => (text, None),
    };
    let port_fits = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    port_fits && (is_ipv6(host) || host.split('.').all(is_domain_component))
}

/// Lower-case components joined by slashes.
pub(super) fn is_path(text: &str) -> bool {
    text.split('/').all(is_path_component)
}

/// At most 128 letters, digits, `_`, `.`, `-`, not starting with one of the last two.
pub(super) fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let Some(first) = text.bytes().next() else { return false };
    text.len() <= 128 && is_word(first) && text.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

/// `algorithm:hex` with at least 32 hex digits.
pub(super) fn is_digest(text: &str) -> bool {
    let Some((algorithm, digits)) = text.split_once(':') else { return false };
    let component = |part: &str| {
        part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['+', '.', '-', '_']).all(component)
        && digits.len() >= 32
        && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_ipv6(host: &str) -> bool {
    let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) else { return false };
    !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
}

fn is_domain_component(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Runs of lower-case letters and digits, separated by one dot, one or two underscores, or any number of dashes.
fn is_path_component(text: &str) -> bool {
    let is_alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_edge = |b: Option<u8>| b.is_some_and(is_alphanumeric);
    is_edge(text.bytes().next())
        && is_edge(text.bytes().last())
        && text
            .as_bytes()
            .split(|b| is_alphanumeric(*b))
            .filter(|separator| !separator.is_empty())
            .all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-'))
}
