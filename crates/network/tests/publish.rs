//! Published ports, with real traffic from every side.

mod support;

use std::net::{TcpListener, UdpSocket};

use shoal_network::{EndpointError, Protocol};
use support::{
    ask_udp, connect, container, echo, inside, netns_of, on_machine, port, publishing, run, serve_tcp, serve_udp,
    unreachable,
};

#[test]
fn a_published_port_is_reached_from_everywhere() {
    on_machine(|machine| async move {
        let client = machine.add_client();
        let network = machine.open(&[]).await;
        let web = publishing("web", vec![port("", "8080", 80, Protocol::Tcp)]);
        let web = network.create_endpoint(web).await.expect("web");
        let other = network.create_endpoint(container("other")).await.expect("other");
        serve_tcp(netns_of(&web), "0.0.0.0:80");
        let from = |netns: &std::path::Path, to: &'static str| inside(netns, move || connect(to).expect(to).0);
        assert_eq!(from(&client, "192.0.2.1:8080"), "192.0.2.2", "a neighbour keeps its address");
        assert_eq!(from(&client, "[2001:db8::1]:8080"), "172.17.0.1", "IPv6 is proxied to a container without");
        assert_eq!(connect("127.0.0.1:8080").expect("loopback").0, "172.17.0.1");
        assert_eq!(connect("127.8.9.1:8080").expect("all of loopback").0, "172.17.0.1");
        assert_eq!(connect("[::1]:8080").expect("IPv6 loopback").0, "172.17.0.1");
        assert_eq!(connect("192.0.2.1:8080").expect("own address").0, "192.0.2.1");
        assert_eq!(connect("172.17.0.1:8080").expect("the gateway").0, "172.17.0.1");
        assert_eq!(from(netns_of(&other), "172.17.0.1:8080"), "172.17.0.1", "a neighbour by the gateway");
        assert_eq!(from(netns_of(&other), "192.0.2.1:8080"), "172.17.0.1", "a neighbour by the host");
        assert_eq!(from(netns_of(&web), "192.0.2.1:8080"), "172.17.0.1", "itself by the host");
    });
}

#[test]
fn a_port_on_one_address_is_not_reached_on_others() {
    on_machine(|machine| async move {
        let client = machine.add_client();
        let network = machine.open(&[]).await;
        let local = publishing("local", vec![port("127.0.0.1", "8080", 80, Protocol::Tcp)]);
        let outer = publishing("outer", vec![port("192.0.2.1", "8080", 80, Protocol::Tcp)]);
        let local = network.create_endpoint(local).await.expect("local");
        let outer = network.create_endpoint(outer).await.expect("the same port on another address");
        serve_tcp(netns_of(&local), "0.0.0.0:80");
        serve_tcp(netns_of(&outer), "0.0.0.0:80");
        assert_eq!(connect("127.0.0.1:8080").expect("loopback").0, "172.17.0.1");
        assert_eq!(inside(&client, || connect("192.0.2.1:8080").expect("outer").0), "192.0.2.2");
        network.release_endpoint("outer").await.expect("released");
        assert!(inside(&client, || unreachable("192.0.2.1:8080")));
        assert!(connect("127.0.0.1:8080").is_ok());
    });
}

#[test]
fn a_neighbour_reaches_neither_loopback_ports_nor_unpublished_ones() {
    on_machine(|machine| async move {
        let client = machine.add_client();
        let network = machine.open(&[]).await;
        let ports = vec![port("127.0.0.1", "8080", 80, Protocol::Tcp), port("", "9090", 90, Protocol::Tcp)];
        let web = network.create_endpoint(publishing("web", ports)).await.expect("web");
        let other = network.create_endpoint(container("other")).await.expect("other");
        serve_tcp(netns_of(&web), "0.0.0.0:80");
        serve_tcp(netns_of(&web), "0.0.0.0:90");
        inside(&client, || {
            run("ip route add 172.17.0.0/16 via 192.0.2.1");
            run("sysctl -qw net.ipv4.conf.all.route_localnet=1");
            run("ip addr del 127.0.0.1/8 dev lo");
            run("ip route add 127.0.0.1/32 via 192.0.2.1 src 192.0.2.2");
        });
        assert!(inside(&client, || connect("192.0.2.1:9090").is_ok()), "the wire works");
        assert!(inside(&client, || unreachable("127.0.0.1:8080")), "loopback, over the wire");
        assert!(inside(&client, || unreachable("172.17.0.2:80")), "a container's port, by routing");
        inside(netns_of(&other), || {
            run("sysctl -qw net.ipv4.conf.all.route_localnet=1");
            run("ip addr del 127.0.0.1/8 dev lo");
            run("ip route add 127.0.0.1/32 via 172.17.0.1 src 172.17.0.3");
        });
        let host_only = TcpListener::bind("127.0.0.1:7070").expect("a listener of the host");
        assert!(inside(netns_of(&other), || unreachable("127.0.0.1:8080")), "loopback, from a container");
        assert!(inside(netns_of(&other), || unreachable("127.0.0.1:7070")), "the host's own, from a container");
        drop(host_only);
    });
}

#[test]
fn a_machine_that_did_not_forward_does_not_begin_to_for_its_neighbours() {
    on_machine(|machine| async move {
        let client = machine.add_client();
        let server = machine.add_neighbour("lan", "198.51.100", "2001:db8:1:");
        inside(&client, || run("ip route add default via 192.0.2.1"));
        inside(&server, || run("ip route add default via 198.51.100.1"));
        serve_tcp(&server, "0.0.0.0:80");
        let network = machine.open(&[]).await;
        let one = network.create_endpoint(container("one")).await.expect("one");
        let reached = || inside(&client, || !unreachable("198.51.100.2:80"));
        assert!(!reached());
        let seen = inside(netns_of(&one), || connect("198.51.100.2:80").expect("containers get out").0);
        assert_eq!(seen, "198.51.100.1", "with the host's address");
        drop(network);
        let network = machine.open(&[&one]).await;
        assert!(!reached(), "the next daemon remembers");
        drop(network);
        std::fs::remove_dir_all(machine.dir.path().join("data")).expect("removed");
        std::fs::remove_file(machine.config().netns_dir.join("guarded.json")).expect("removed");
        machine.open(&[&one]).await;
        assert!(reached(), "where forwarding was on before us it stays on");
    });
}

#[test]
fn datagrams_reach_the_container_that_has_the_port_now() {
    on_machine(|machine| async move {
        let client = machine.add_client();
        let network = machine.open(&[]).await;
        let (socket, socket6) = inside(&client, || {
            (UdpSocket::bind("0.0.0.0:5000").expect("a socket"), UdpSocket::bind("[::]:5001").expect("a socket"))
        });
        // the first datagrams come before there is a container, and are remembered as the host's own
        socket.send_to(b"?", "192.0.2.1:53").expect("sent");
        let dns = |id| publishing(id, vec![port("", "53", 5353, Protocol::Udp)]);
        let keep = network.create_endpoint(container("keep")).await.expect("keep");
        let one = network.create_endpoint(dns("one")).await.expect("one");
        serve_udp(netns_of(&one), "0.0.0.0:5353", "one");
        assert_eq!(ask_udp(&socket, "192.0.2.1:53"), "one 192.0.2.2");
        assert_eq!(ask_udp(&socket6, "[2001:db8::1]:53"), "one 172.17.0.1");
        network.release_endpoint("one").await.expect("released");
        network.release_endpoint("keep").await.expect("released");
        let two = network.create_endpoint(container("two")).await.expect("two");
        let three = network.create_endpoint(dns("three")).await.expect("three");
        assert_ne!(support::ip_of(&three), support::ip_of(&keep), "another address than the first had");
        serve_udp(netns_of(&three), "0.0.0.0:5353", "three");
        assert_eq!(ask_udp(&socket, "192.0.2.1:53"), "three 192.0.2.2");
        drop(two);
    });
}

#[test]
fn port_conflicts_are_found_before_anything_is_made() {
    on_machine(|machine| async move {
        let network = machine.open(&[]).await;
        let web = |id, ip| publishing(id, vec![port(ip, "8080", 80, Protocol::Tcp)]);
        network.create_endpoint(web("one", "")).await.expect("one");
        let text = |error: EndpointError| {
            let EndpointError::Port { name, id, .. } = &error else { panic!("{error}") };
            let prefix = format!("driver failed programming external connectivity on endpoint {name} ({id}): ");
            error.to_string().strip_prefix(&prefix).expect("Docker's beginning").to_owned()
        };
        let error = network.create_endpoint(web("two", "")).await.expect_err("taken");
        assert_eq!(text(error), "Bind for 0.0.0.0:8080 failed: port is already allocated");
        let error = network.create_endpoint(web("two", "127.0.0.1")).await.expect_err("taken");
        assert_eq!(text(error), "Bind for 127.0.0.1:8080 failed: port is already allocated");
        let others = TcpListener::bind("0.0.0.0:9090").expect("a listener");
        let nine = publishing("two", vec![port("0.0.0.0", "9090", 80, Protocol::Tcp)]);
        let error = network.create_endpoint(nine.clone()).await.expect_err("taken");
        assert_eq!(text(error), "failed to bind host port for 0.0.0.0:9090:172.17.0.3:80/tcp: address already in use");
        drop(others);
        network.create_endpoint(nine).await.expect("free now");
        assert!(TcpListener::bind("0.0.0.0:9090").is_err(), "held against others");
        network.release_endpoint("two").await.expect("released");
        support::wait_until(|| TcpListener::bind("0.0.0.0:9090").is_ok());
    });
}

#[test]
fn ranges_and_ephemeral_ports_pick_free_ones_and_say_which() {
    on_machine(|machine| async move {
        let network = machine.open(&[]).await;
        let request = |id, ports| publishing(id, vec![port("0.0.0.0", ports, 80, Protocol::Tcp)]);
        let others = TcpListener::bind("0.0.0.0:8001").expect("a listener");
        let mut chosen = Vec::new();
        for id in ["a", "b"] {
            let endpoint = network.create_endpoint(request(id, "8000-8002")).await.expect(id);
            chosen.push(endpoint.bridge.expect("a place").ports[0].host_port);
        }
        assert_eq!(chosen, [8000, 8002]);
        let error = network.create_endpoint(request("c", "8000-8002")).await.expect_err("none left");
        assert!(error.to_string().ends_with("all ports are allocated"), "{error}");
        let both = publishing("d", vec![port("", "", 80, Protocol::Tcp)]);
        let both = network.create_endpoint(both).await.expect("d");
        let map = both.port_map();
        let bindings: Vec<_> = map["80/tcp"].iter().map(|found| (&*found.host_ip, &*found.host_port)).collect();
        assert_eq!(bindings, [("0.0.0.0", "32768"), ("::", "32768")]);
        serve_tcp(netns_of(&both), "0.0.0.0:80");
        assert!(echo(&mut connect("127.0.0.1:32768").expect("a connection").1, "hello").is_ok());
        drop(others);
    });
}

#[test]
fn a_table_that_another_program_flushed_is_loaded_again() {
    on_machine(|machine| async move {
        let network = machine.open(&[]).await;
        let web = |id, number| publishing(id, vec![port("", number, 80, Protocol::Tcp)]);
        network.create_endpoint(web("one", "8080")).await.expect("one");
        let rules = run("nft list ruleset");
        for round in 0..3 {
            run("nft flush ruleset");
            support::wait_until(|| run("nft list ruleset") == rules);
            run("nft flush ruleset");
            network.create_endpoint(web("two", "8081")).await.expect("two");
            network.release_endpoint("two").await.expect("released");
            assert_eq!(run("nft list ruleset"), rules, "round {round}");
        }
    });
}

#[test]
fn sctp_is_translated_where_the_kernel_can_and_refused_where_nothing_can() {
    on_machine(|machine| async move {
        let network = machine.open(&[]).await;
        let request = |id, ip| publishing(id, vec![port(ip, "7000", 7000, Protocol::Sctp)]);
        let any = network.create_endpoint(request("any", "")).await.expect("any");
        assert_eq!(any.bridge.expect("a place").ports.len(), 1, "IPv4 alone");
        assert!(run("nft list map inet shoal0 any4").contains("sctp . 7000 : 172.17.0.2 . 7000"));
        let error = network.create_endpoint(request("six", "::1")).await.expect_err("no way");
        assert!(error.to_string().contains("sctp"), "{error}");
    });
}
