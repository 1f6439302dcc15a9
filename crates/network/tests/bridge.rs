//! Containers on the default bridge: what they get, what they reach, and that nothing remains of them.

mod support;

use shoal_network::{EndpointError, NetworkMode, Protocol};
use support::{
    connect, container, inside, ip_of, netns_of, on_machine, port, publishing, run, serve_tcp, wait_for_ports,
};

#[test]
fn containers_get_the_lowest_free_address_and_reach_each_other_and_the_gateway() {
    on_machine(|machine| async move {
        let network = machine.open(&[]).await;
        let one = network.create_endpoint(container("one")).await.expect("one");
        let two = network.create_endpoint(container("two")).await.expect("two");
        assert_eq!([ip_of(&one), ip_of(&two)].map(|ip| ip.to_string()), ["172.17.0.2", "172.17.0.3"]);
        serve_tcp(netns_of(&one), "0.0.0.0:80");
        let seen = inside(netns_of(&two), || connect("172.17.0.2:80").expect("a connection").0);
        assert_eq!(seen, "172.17.0.3");
        assert_eq!(connect("172.17.0.2:80").expect("from the host").0, "172.17.0.1");
        let addresses = inside(netns_of(&one), || run("ip -o addr"));
        assert!(addresses.contains("eth0    inet 172.17.0.2/16 brd 172.17.255.255"), "{addresses}");
        assert!(addresses.contains("127.0.0.1/8"), "{addresses}");
        assert!(!addresses.contains("fe80"), "no IPv6 on a bridge without: {addresses}");
        let link = inside(netns_of(&one), || run("ip link show eth0"));
        assert!(link.contains("02:42:ac:11:00:02") && link.contains("mtu 1500"), "{link}");
        network.release_endpoint("one").await.expect("released");
        let three = network.create_endpoint(container("three")).await.expect("three");
        assert_eq!(ip_of(&three), ip_of(&one));
    });
}

#[test]
fn nothing_remains_of_a_released_container() {
    on_machine(|machine| async move {
        let network = machine.open(&[]).await;
        let rules = run("nft list ruleset");
        let request = publishing("one", vec![port("", "8080", 80, Protocol::Tcp), port("", "53", 53, Protocol::Udp)]);
        let one = network.create_endpoint(request).await.expect("one");
        assert_ne!(run("nft list ruleset"), rules);
        network.release_endpoint("one").await.expect("released");
        network.release_endpoint("one").await.expect("a second time is no error");
        assert_eq!(run("nft list ruleset"), rules);
        wait_for_ports(0);
        assert!(!netns_of(&one).exists());
        assert!(network.networks().iter().all(|info| info.containers.is_empty()));
    });
}

#[test]
fn a_failed_setup_is_undone_exactly() {
    on_machine(|machine| async move {
        let network = machine.open(&[]).await;
        let before = (run("nft list ruleset"), run("ip -o link").lines().count());
        let namespaces = || std::fs::read_dir(machine.config().netns_dir).expect("a directory").count();
        let files = namespaces();
        run("ip link delete shoal0");
        let request = publishing("one", vec![port("", "8080", 80, Protocol::Tcp)]);
        let error = network.create_endpoint(request.clone()).await.expect_err("there is no bridge");
        assert!(matches!(error, EndpointError::Kernel { .. }), "{error}");
        assert_eq!(run("nft list ruleset"), before.0);
        assert_eq!(run("ip -o link").lines().count(), before.1 - 1);
        assert_eq!(namespaces(), files);
        drop(network);
        let network = machine.open(&[]).await;
        let one = network.create_endpoint(request).await.expect("address and port are free again");
        assert_eq!(ip_of(&one).to_string(), "172.17.0.2");
    });
}

#[test]
fn the_network_none_has_loopback_only_and_host_has_no_namespace() {
    on_machine(|machine| async move {
        let network = machine.open(&[]).await;
        let request = |id, mode| shoal_network::EndpointRequest { mode, ..container(id) };
        let none = network.create_endpoint(request("n", NetworkMode::None)).await.expect("none");
        let host = network.create_endpoint(request("h", NetworkMode::Host)).await.expect("host");
        let links = inside(netns_of(&none), || run("ip -o link"));
        assert_eq!(links.lines().count(), 1, "{links}");
        assert!(links.contains("lo: <LOOPBACK,UP"), "{links}");
        assert_eq!((host.netns, host.bridge), (None, None));
        let networks = network.networks();
        let attached: Vec<_> =
            networks.iter().map(|info| info.containers.keys().cloned().collect::<Vec<_>>()).collect();
        assert_eq!(attached, [vec![], vec!["h".to_owned()], vec!["n".to_owned()]]);
    });
}

#[test]
fn the_subnet_avoids_routes_that_are_there_and_stays_chosen() {
    on_machine(|machine| async move {
        run("ip link add other type bridge");
        run("ip addr add 172.17.44.1/24 dev other");
        run("ip addr add 172.18.0.1/15 dev other");
        run("ip link set other up");
        let network = machine.open(&[]).await;
        assert_eq!(network.gateway().to_string(), "172.20.0.1");
        let ids: Vec<_> = network.networks().into_iter().map(|info| info.id).collect();
        drop(network);
        run("ip link delete other");
        run("ip link delete shoal0");
        let network = machine.open(&[]).await;
        assert_eq!(network.gateway().to_string(), "172.20.0.1");
        assert_eq!(network.networks().into_iter().map(|info| info.id).collect::<Vec<_>>(), ids);
    });
}

#[test]
fn fifty_at_once_all_get_an_address_of_their_own() {
    on_machine(|machine| async move {
        let network = machine.open(&[]).await;
        let tasks: Vec<_> = (0..50)
            .map(|number| {
                let network = network.clone();
                tokio::spawn(async move { network.create_endpoint(container(&format!("c{number}"))).await })
            })
            .collect();
        let mut addresses = std::collections::BTreeSet::new();
        for task in tasks {
            addresses.insert(ip_of(&task.await.expect("a task").expect("an endpoint")));
        }
        assert_eq!(addresses.len(), 50);
        assert_eq!(addresses.last().expect("fifty").to_string(), "172.17.0.51");
        assert_eq!(run("ip -o link show master shoal0").lines().count(), 50);
        let tasks: Vec<_> = (0..50)
            .map(|number| {
                let network = network.clone();
                tokio::spawn(async move { network.release_endpoint(&format!("c{number}")).await })
            })
            .collect();
        for task in tasks {
            task.await.expect("a task").expect("released");
        }
        let next = network.create_endpoint(container("next")).await.expect("next");
        assert_eq!(ip_of(&next).to_string(), "172.17.0.2", "while the first's interface may still be there");
        serve_tcp(netns_of(&next), "0.0.0.0:80");
        assert!(connect("172.17.0.2:80").is_ok());
        wait_for_ports(1);
    });
}

#[test]
fn both_families_where_the_bridge_has_them() {
    on_machine(|machine| async move {
        let mut config = machine.config();
        config.subnet6 = Some("fd00:17::/64".parse().expect("a network"));
        config.mtu = 1400;
        let network = shoal_network::NodeNetwork::open(config, vec![]).await.expect("the network opens");
        let request = publishing("one", vec![port("", "8080", 80, Protocol::Tcp)]);
        let one = network.create_endpoint(request).await.expect("one");
        let client = machine.add_client();
        serve_tcp(netns_of(&one), "[::]:80");
        let seen = inside(&client, || connect("[2001:db8::1]:8080").expect("over IPv6").0);
        assert_eq!(seen, "2001:db8::2", "the client's address is kept");
        let seen = inside(&client, || connect("192.0.2.1:8080").expect("over IPv4").0);
        assert_eq!(seen, "::ffff:192.0.2.2");
        assert_eq!(connect("[::1]:8080").expect("over loopback").0, "fd00:17::1");
        let info = &network.networks()[0];
        assert_eq!(info.containers["one"].ipv6_address, "fd00:17::2/64");
        assert!(inside(netns_of(&one), || run("ip link show eth0")).contains("mtu 1400"));
    });
}

#[test]
fn inspect_has_dockers_shape() {
    on_machine(|machine| async move {
        let network = machine.open(&[]).await;
        let one = network.create_endpoint(container("one")).await.expect("one");
        let body = serde_json::to_value(&network.networks()[0]).expect("JSON");
        assert_eq!(body["Name"], "bridge");
        assert_eq!(body["Driver"], "bridge");
        assert_eq!(body["Scope"], "local");
        assert_eq!(body["EnableIPv6"], false);
        assert_eq!(body["Id"].as_str().map(str::len), Some(64));
        let pool = serde_json::json!({ "Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1" });
        assert_eq!(body["IPAM"], serde_json::json!({ "Driver": "default", "Options": null, "Config": [pool] }));
        assert_eq!(body["Options"]["com.docker.network.bridge.name"], "shoal0");
        assert_eq!(body["Options"]["com.docker.network.driver.mtu"], "1500");
        let attached = serde_json::json!({
            "Name": "one", "EndpointID": one.id, "MacAddress": "02:42:ac:11:00:02",
            "IPv4Address": "172.17.0.2/16", "IPv6Address": "",
        });
        assert_eq!(body["Containers"], serde_json::json!({ "one": attached }));
        let settings = serde_json::to_value(one.settings(network.id(NetworkMode::Bridge))).expect("JSON");
        assert_eq!(settings["NetworkID"], body["Id"]);
        assert_eq!((&settings["IPAddress"], &settings["IPPrefixLen"]), (&"172.17.0.2".into(), &16.into()));
        assert_eq!(settings["Gateway"], "172.17.0.1");
        network.rename("one", "uno");
        assert_eq!(network.networks()[0].containers["one"].name, "uno");
        let drivers: Vec<_> = network.networks().into_iter().map(|info| (info.name, info.driver)).collect();
        let expected = [("bridge", "bridge"), ("host", "host"), ("none", "null")];
        assert_eq!(drivers, expected.map(|(name, driver)| (name.to_owned(), driver.to_owned())));
        let kept: shoal_network::Endpoint =
            serde_json::from_str(&serde_json::to_string(&one).expect("JSON")).expect("the same");
        assert_eq!(kept, one);
    });
}
