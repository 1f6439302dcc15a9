use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Reference {
    Reference::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn what_users_write_is_normalised_as_docker_does() {
    let digest = format!("sha256:{}", "a".repeat(64));
    for (written, normal, familiar) in [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("user/app", "docker.io/user/app", "user/app"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app:x", "localhost:5000/app:x", "localhost:5000/app:x"),
        ("Host/app", "Host/app", "Host/app"),
        ("reg.example.com/a/b-c__d.e", "reg.example.com/a/b-c__d.e", "reg.example.com/a/b-c__d.e"),
        ("[fe80::1]:5000/app", "[fe80::1]:5000/app", "[fe80::1]:5000/app"),
        ("app:Tag_1.x-y", "docker.io/library/app:Tag_1.x-y", "app:Tag_1.x-y"),
        ("a---b", "docker.io/library/a---b", "a---b"),
    ] {
        let reference = parse(written);
        assert_eq!((reference.to_string().as_str(), reference.familiar().as_str()), (normal, familiar));
    }
    let both = parse(&format!("app:1@{digest}"));
    assert_eq!(both.familiar(), format!("app:1@{digest}"));
    assert_eq!(both.key().familiar(), format!("app@{digest}"));
    assert_eq!(parse("app").key().familiar(), "app:latest");
}

#[test]
fn what_is_no_reference_is_refused_in_dockers_words() {
    for text in [
        "",
        ":tag",
        "app:",
        "app@",
        "a//b",
        "-app",
        "app-",
        "a..b",
        "a___b",
        "a._b",
        "app:-x",
        "app@sha256:abc",
        "ho_st.x/app",
        "host.:5000/app",
        "host:port/app",
        "a b",
        "app:täg",
        "/app",
        "app/",
        "app:a:b",
        "[fe80::1/app",
        "a@b@c",
        "x.y/",
        "-h.x/app",
    ] {
        assert_eq!(Reference::parse(text), Err(ReferenceError::Format), "{text:?}");
    }
    assert_eq!(
        Reference::parse("App").expect_err("refused").to_string(),
        "invalid reference format: repository name (library/App) must be lowercase"
    );
    assert_eq!(
        Reference::parse(&"a".repeat(64)).expect_err("refused").to_string(),
        format!("invalid repository name ({}), cannot specify 64-byte hexadecimal strings", "a".repeat(64))
    );
    assert_eq!(Reference::parse(&"a".repeat(300)), Err(ReferenceError::TooLong));
    assert_eq!(
        Reference::parse(&format!("app@md5:{}", "a".repeat(32))).expect_err("refused").to_string(),
        "unsupported digest algorithm"
    );
    assert_eq!(Reference::parse(&format!("app:{}", "t".repeat(129))), Err(ReferenceError::Format));
}

proptest! {
    #[test]
    fn every_valid_reference_reads_back_from_both_forms(
        domain in prop::option::of("[a-z0-9]{1,8}(\\.[a-z]{2,3}|:[0-9]{1,5})"),
        path in "[a-z0-9]{1,6}((_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,6}((\\.|_|-)[a-z0-9]{1,4})?){0,2}",
        tag in prop::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
        digest in prop::option::of(any::<[u8; 4]>()),
    ) {
        let domain = domain.map(|domain| format!("{domain}/")).unwrap_or_default();
        let tag = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = digest.map(|bytes| format!("@{}", Digest::of(&bytes))).unwrap_or_default();
        let reference = parse(&format!("{domain}{path}{tag}{digest}"));
        prop_assert_eq!(&parse(&reference.to_string()), &reference);
        prop_assert_eq!(&parse(&reference.familiar()), &reference);
    }

    #[test]
    fn no_input_makes_the_parser_panic(text in "\\PC{0,80}") {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert_eq!(Reference::parse(&reference.to_string()), Ok(reference));
        }
    }
}
