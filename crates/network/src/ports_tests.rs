use super::*;

fn binding(protocol: Protocol, ip: &str, host_port: u16) -> PortBinding {
    PortBinding { protocol, container_port: 80, host_ip: ip.parse().expect("an address"), host_port }
}

#[test]
fn any_address_and_one_of_its_family_exclude_each_other() {
    let mut ports = Ports { taken: BTreeMap::new(), next: 0, everywhere: Vec::new() };
    let mut claim = |protocol, ip, port| ports.claim(&binding(protocol, ip, port)).is_ok();
    assert!(claim(Protocol::Tcp, "127.0.0.1", 80));
    assert!(claim(Protocol::Tcp, "192.0.2.1", 80), "another address");
    assert!(!claim(Protocol::Tcp, "0.0.0.0", 80));
    assert!(claim(Protocol::Tcp, "::", 80), "another family");
    assert!(!claim(Protocol::Tcp, "::1", 80));
    assert!(claim(Protocol::Udp, "0.0.0.0", 80), "another protocol");
    assert!(claim(Protocol::Tcp, "0.0.0.0", 81), "another port");
}

#[test]
fn a_released_binding_is_free_and_leaves_others_alone() {
    let mut ports = Ports { taken: BTreeMap::new(), next: 0, everywhere: Vec::new() };
    let (one, two) = (binding(Protocol::Tcp, "127.0.0.1", 80), binding(Protocol::Tcp, "127.0.0.2", 80));
    ports.claim(&one).expect("free");
    ports.claim(&two).expect("free");
    ports.release(&one);
    assert!(ports.claim(&two).is_err());
    assert!(ports.claim(&one).is_ok());
}

#[test]
fn host_ports_are_read_as_docker_writes_them() {
    let read = |text: &str| text.parse::<HostPorts>();
    assert_eq!(read(""), Ok(HostPorts::Ephemeral));
    assert_eq!(read("0"), Ok(HostPorts::Ephemeral));
    assert_eq!(read("8080"), Ok(HostPorts::Range(8080, 8080)));
    assert_eq!(read("8000-8010"), Ok(HostPorts::Range(8000, 8010)));
    for wrong in ["x", "70000", "8010-8000", "0-5", "80-", "-80", "1-2-3"] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}
