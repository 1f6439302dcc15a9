use super::*;
use crate::endpoint::BridgePlace;

fn endpoint(mode: NetworkMode) -> Endpoint {
    let ipv4 = Ipv4Addr::new(172, 17, 0, 2);
    let place = BridgePlace {
        host_link: "shv0".to_owned(),
        mac: shoal_rules::Mac::of_ipv4(ipv4),
        ipv4,
        prefix: 16,
        gateway: Ipv4Addr::new(172, 17, 0, 1),
        ipv6: None,
        prefix6: 0,
        gateway6: None,
        ports: Vec::new(),
    };
    Endpoint {
        id: "e".to_owned(),
        sandbox_id: "s".to_owned(),
        container_id: "c".to_owned(),
        container_name: "n".to_owned(),
        mode,
        netns: None,
        bridge: (mode == NetworkMode::Bridge).then_some(place),
    }
}

fn with_ipv6() -> Endpoint {
    let mut endpoint = endpoint(NetworkMode::Bridge);
    let place = endpoint.bridge.as_mut().expect("a place");
    place.ipv6 = Some("fd00::2".parse().expect("an address"));
    endpoint
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_hosts_file_ends_with_the_containers_own_addresses() {
    let extra = ["db:10.1.2.3", "up=host-gateway", "six=[fd00::9]"].map(|text| parse_extra_host(text).expect(text));
    let gateway = Some(IpAddr::V4(Ipv4Addr::new(172, 17, 0, 1)));
    let text = hosts_file("", &with_ipv6(), "web", "example.com", &extra, gateway).expect("a file");
    let ours = text.strip_prefix(LOCALHOST).expect("loopback first");
    let names = "web.example.com web";
    assert_eq!(ours, format!("10.1.2.3\tdb\n172.17.0.1\tup\nfd00::9\tsix\n172.17.0.2\t{names}\nfd00::2\t{names}\n"));
    let bare = hosts_file("", &endpoint(NetworkMode::None), "web", "", &[], None).expect("a file");
    assert_eq!(bare, LOCALHOST);
    assert!(hosts_file("", &endpoint(NetworkMode::None), "web", "", &extra, None).is_err(), "no gateway to name");
}

#[test]
fn on_the_hosts_network_the_hosts_files_are_used() {
    let host = endpoint(NetworkMode::Host);
    let extra = [ExtraHost { name: "db".to_owned(), ip: Some(IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3))) }];
    let text = hosts_file("127.0.0.1 here", &host, "web", "", &extra, None).expect("a file");
    assert_eq!(text, "127.0.0.1 here\n10.1.2.3\tdb\n");
    let text = resolv_conf("nameserver 127.0.0.53\nsearch lan\n", &DnsOptions::default(), &host);
    assert_eq!(text, "nameserver 127.0.0.53\nsearch lan\n");
}

#[test]
fn extra_hosts_are_read_as_docker_reads_them() {
    for wrong in ["", "db", ":10.0.0.1", "db:", "db:nowhere", "db=1.2.3"] {
        assert!(parse_extra_host(wrong).is_err(), "{wrong}");
    }
    let six = parse_extra_host("db:fd00::1").expect("IPv6 after the first colon");
    assert_eq!((six.name.as_str(), six.ip), ("db", "fd00::1".parse().ok()));
}

#[test]
fn servers_that_a_container_cannot_reach_are_left_out() {
    let host = "# c\nnameserver 127.0.0.1\nnameserver 10.0.0.53 ; near\nnameserver fd00::53\nnameserver fe80::1%eth0\n\
                domain old\nsearch a.example b.example\noptions ndots:2 edns0\n";
    let text = resolv_conf(host, &DnsOptions::default(), &endpoint(NetworkMode::Bridge));
    assert_eq!(text, "nameserver 10.0.0.53\nsearch a.example b.example\noptions ndots:2 edns0\n");
    let text = resolv_conf(host, &DnsOptions::default(), &with_ipv6());
    assert!(text.starts_with("nameserver 10.0.0.53\nnameserver fd00::53\nsearch"), "{text}");
}

#[test]
fn where_none_is_left_public_servers_are_named() {
    let text = resolv_conf("nameserver ::1\n", &DnsOptions::default(), &endpoint(NetworkMode::Bridge));
    assert_eq!(words(&text), ["nameserver", "8.8.8.8", "nameserver", "8.8.4.4"]);
    assert_eq!(words(&resolv_conf("", &DnsOptions::default(), &with_ipv6())).len(), 8);
}

#[test]
fn what_the_user_says_replaces_the_hosts_kind_by_kind() {
    let host = "nameserver 10.0.0.53\nsearch lan\noptions rotate\n";
    let dns = |servers: &[&str], search: &[&str], options: &[&str]| DnsOptions {
        servers: servers.iter().map(|ip| ip.parse().expect("an address")).collect(),
        search: search.iter().map(|word| (*word).to_owned()).collect(),
        options: options.iter().map(|word| (*word).to_owned()).collect(),
    };
    let write = |dns| resolv_conf(host, &dns, &endpoint(NetworkMode::Bridge));
    assert_eq!(write(dns(&["127.0.0.1"], &[], &[])), "nameserver 127.0.0.1\nsearch lan\noptions rotate\n");
    assert_eq!(write(dns(&[], &["."], &["ndots:1"])), "nameserver 10.0.0.53\noptions ndots:1\n");
}

#[test]
fn the_local_stub_is_recognised() {
    assert!(names_only_the_stub("nameserver 127.0.0.53\noptions edns0\n"));
    assert!(!names_only_the_stub("nameserver 127.0.0.53\nnameserver 10.0.0.1\n"));
    assert!(!names_only_the_stub(""));
}
