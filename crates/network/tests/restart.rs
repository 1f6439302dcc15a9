//! A daemon that dies and comes back: containers notice nothing.

mod support;

use std::{fs, net::TcpListener, os::unix::fs::MetadataExt, process::Command};

use shoal_network::{LiveEndpoint, NodeNetwork, Protocol};
use support::{
    connect, container, echo, inside, ip_of, netns_of, on_machine, port, publishing, run, serve_tcp, wait_until,
};

#[test]
fn established_connections_live_on_and_nothing_changes_in_the_kernel() {
    on_machine(|machine| async move {
        let client = machine.add_client();
        let network = machine.open(&[]).await;
        let web = publishing("web", vec![port("", "8080", 80, Protocol::Tcp)]);
        let web = network.create_endpoint(web).await.expect("web");
        let other = network.create_endpoint(container("other")).await.expect("other");
        serve_tcp(netns_of(&web), "0.0.0.0:80");
        let mut outer = inside(&client, || connect("192.0.2.1:8080").expect("a connection").1);
        let mut local = connect("127.0.0.1:8080").expect("a connection").1;
        let kernel = || (run("nft list ruleset"), run("ip -o addr"), run("ip -o route"), run("ip -o link"));
        let before = kernel();
        drop(network);
        assert_eq!(echo(&mut outer, "while down").expect("an answer"), "while down");
        assert!(inside(&client, || connect("192.0.2.1:8080").is_ok()), "new connections while down");
        let network = machine.open(&[&web, &other]).await;
        assert_eq!(kernel(), before);
        assert_eq!(echo(&mut outer, "again").expect("an answer"), "again");
        assert_eq!(echo(&mut local, "again").expect("an answer"), "again");
        assert!(connect("[::1]:8080").is_ok(), "the proxy is back");
        assert!(TcpListener::bind("0.0.0.0:8080").is_err(), "the port is held again");
        let next = network.create_endpoint(container("next")).await.expect("next");
        assert_eq!(ip_of(&next).to_string(), "172.17.0.4", "addresses of the living are taken");
        network.release_endpoint("web").await.expect("released");
        // a process that another test starts may have the socket until it becomes another program
        wait_until(|| TcpListener::bind("0.0.0.0:8080").is_ok());
    });
}

#[test]
fn what_the_dead_left_is_swept_and_the_living_keep_theirs() {
    on_machine(|machine| async move {
        let network = machine.open(&[]).await;
        let dead = publishing("dead", vec![port("", "8080", 80, Protocol::Tcp)]);
        let dead = network.create_endpoint(dead).await.expect("dead");
        let alive = network.create_endpoint(container("alive")).await.expect("alive");
        run("ip link add user0 type veth peer name user1");
        run("ip link set user0 master shoal0");
        drop(network);
        let network = machine.open(&[&alive]).await;
        assert!(!netns_of(&dead).exists());
        let ports = run("ip -o link show master shoal0");
        assert_eq!(ports.lines().count(), 2, "one container and what the user added: {ports}");
        assert!(ports.contains("user0"), "{ports}");
        assert!(!run("nft list ruleset").contains("8080"));
        let next = network.create_endpoint(container("next")).await.expect("next");
        assert_eq!(ip_of(&next), ip_of(&dead));
    });
}

#[test]
fn lost_mounts_interfaces_and_bridge_are_made_again() {
    on_machine(|machine| async move {
        let network = machine.open(&[]).await;
        let one = network.create_endpoint(container("one")).await.expect("one");
        let two = network.create_endpoint(container("two")).await.expect("two");
        let mut sleeper = Command::new("nsenter")
            .arg(format!("--net={}", netns_of(&one).display()))
            .args(["sleep", "1000"])
            .spawn()
            .expect("a process");
        let of_process = format!("/proc/{}/ns/net", sleeper.id());
        let number = |path: &std::path::Path| fs::metadata(path).map(|found| found.ino()).ok();
        wait_until(|| number(of_process.as_ref()) == number(netns_of(&one)));
        drop(network);
        let place = |endpoint: &shoal_network::Endpoint| endpoint.bridge.clone().expect("a place");
        run(&format!("umount {}", netns_of(&one).display()));
        run(&format!("ip link delete {}", place(&two).host_link));
        run("ip link delete shoal0");
        let pid = i32::try_from(sleeper.id()).ok();
        let live = [(&one, pid), (&two, None)];
        let live = live.map(|(endpoint, pid)| LiveEndpoint { endpoint: endpoint.clone(), pid });
        let network = NodeNetwork::open(machine.config(), live.to_vec()).await.expect("the network opens");
        serve_tcp(netns_of(&two), "0.0.0.0:80");
        let seen = inside(netns_of(&one), || connect("172.17.0.3:80").expect("a connection").0);
        assert_eq!(seen, "172.17.0.2");
        sleeper.kill().expect("killed");
        sleeper.wait().expect("gone");
        drop(network);
    });
}

#[test]
fn an_interface_that_is_no_bridge_and_a_damaged_record_are_refused() {
    on_machine(|machine| async move {
        run("ip link add shoal0 type veth peer name other");
        let error = |opened: Result<NodeNetwork, shoal_network::OpenError>| opened.err().expect("refused").to_string();
        let found = error(NodeNetwork::open(machine.config(), vec![]).await);
        assert!(found.contains("shoal0 exists and is not a bridge"), "{found}");
        run("ip link delete shoal0");
        fs::write(machine.config().data_dir.join("networks.json"), "{").expect("written");
        let found = error(NodeNetwork::open(machine.config(), vec![]).await);
        assert!(found.contains("networks.json"), "{found}");
    });
}

#[test]
fn a_firewall_that_drops_forwarded_packets_is_named_in_the_warnings() {
    on_machine(|machine| async move {
        assert_eq!(machine.open(&[]).await.warnings(), Vec::<String>::new());
        run("nft add table ip filter");
        let script = machine.dir.path().join("other.nft");
        fs::write(&script, "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
            .expect("written");
        run(&format!("nft -f {}", script.display()));
        let warnings = machine.open(&[]).await.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("ip filter FORWARD") && warnings[0].contains("shoal0"), "{warnings:?}");
    });
}
