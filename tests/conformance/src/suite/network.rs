//! Container networks: bridge, host, none, another container's, and published ports.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cx::{Cx, text};
use crate::error::{Failure, Result};
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Engine, the_three_default_networks_are_there),
    case!(Engine, a_bridged_container_has_address_and_gateway),
    case!(Engine, bridged_containers_reach_each_other_and_the_machine),
    case!(Engine, addresses_are_given_back),
    case!(Engine, the_network_none_has_only_loopback),
    case!(Engine, the_network_host_is_the_machines),
    case!(Engine, a_container_can_share_anothers_network),
    case!(Engine, a_published_port_answers_on_this_machine),
    case!(Engine, a_published_udp_port_answers),
    case!(Engine, a_port_is_published_once),
    case!(Engine, a_free_port_is_chosen),
    case!(Engine, published_ports_show_in_lists),
    case!(Engine, published_ports_go_with_the_container),
    case!(Engine, a_port_of_one_address_answers_there_only),
    case!(Engine, containers_reach_published_ports_too),
];

/// What the sample server's answer begins with.
const HELLO: &str = "clock 1.0 on ";

fn address(cx: &Cx<'_>, id: &str) -> Result<String> {
    Ok(text(&cx.inspect(id)?["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]))
}

/// The sample server on port 80, with this much said about its ports.
fn server(cx: &Cx<'_>, name: &str, host: Value) -> Result<String> {
    let spec = json!({"Image": "shoal/clock:1.0", "Env": ["CLOCK_PORT=80"], "ExposedPorts": {"80/tcp": {}}, "HostConfig": host});
    cx.run(name, spec)
}

/// Asks a server from inside a container, until it answers.
fn ask_inside(cx: &Cx<'_>, container: &str, host: &str, port: u16) -> Result<()> {
    cx.until(&format!("{host} port {port} answers {container}"), || {
        let line = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {host} {port}");
        let (_, seen) = cx.exec(container, &["sh", "-c", &line], json!({}))?;
        ensure!(seen.out.contains(HELLO), "{seen:?}");
        Ok(())
    })
}

/// What a server answers, asked until it does.
fn ask(cx: &Cx<'_>, place: &str) -> Result<String> {
    cx.until(&format!("{place} answers"), || {
        let mut stream = TcpStream::connect(place)?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default().trim().to_owned();
        if body.starts_with(HELLO) { Ok(body) } else { Err(Failure::wrong(format!("answered {answer:?}"))) }
    })
}

fn bound_port(cx: &Cx<'_>, id: &str) -> Result<String> {
    let port = text(&cx.inspect(id)?["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]);
    if port.is_empty() { Err(Failure::wrong("no port is published")) } else { Ok(port) }
}

fn the_three_default_networks_are_there(cx: &Cx<'_>) -> Result<()> {
    for (name, driver) in [("bridge", "bridge"), ("host", "host"), ("none", "null")] {
        let network = cx.get(&format!("/networks/{name}"))?.json()?;
        same!(
            (text(&network["Name"]), text(&network["Driver"]), text(&network["Scope"])),
            (name.to_owned(), driver.to_owned(), "local".to_owned()),
            "network"
        );
        let listed = cx.engine.list("/networks", &json!({"name": [name]}))?;
        ensure!(listed.iter().any(|other| other["Id"] == network["Id"]), "{name} is not listed");
    }
    cx.get("/networks/nosuchnetwork")?.refused(404, "network nosuchnetwork not found").map(drop)
}

fn a_bridged_container_has_address_and_gateway(cx: &Cx<'_>) -> Result<()> {
    let id = cx.sleeper("c")?;
    let network = cx.inspect(&id)?["NetworkSettings"]["Networks"]["bridge"].clone();
    let (_, seen) =
        cx.exec(&id, &["sh", "-c", "ip -4 -o addr show eth0; ip route; cat /sys/class/net/eth0/address"], json!({}))?;
    let wanted = [
        format!("{}/{}", text(&network["IPAddress"]), network["IPPrefixLen"]),
        format!("default via {}", text(&network["Gateway"])),
        text(&network["MacAddress"]),
    ];
    for wanted in wanted {
        ensure!(seen.out.contains(&wanted), "{wanted:?} is not in {}", seen.out);
    }
    let members = cx.get("/networks/bridge")?.json()?["Containers"].clone();
    same!(members[&id]["Name"], cx.name("c"), "the network knows its member");
    Ok(())
}

fn bridged_containers_reach_each_other_and_the_machine(cx: &Cx<'_>) -> Result<()> {
    let first = server(cx, "server", json!({}))?;
    let gateway = text(&cx.inspect(&first)?["NetworkSettings"]["Networks"]["bridge"]["Gateway"]);
    ask(cx, &format!("{}:80", address(cx, &first)?))?;
    let client = cx.sleeper("client")?;
    ask_inside(cx, &client, &address(cx, &first)?, 80)?;
    same!(cx.exec(&client, &["ping", "-c", "1", "-W", "3", &gateway], json!({}))?.0, 0, "a ping of the gateway");
    Ok(())
}

fn addresses_are_given_back(cx: &Cx<'_>) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..3 {
        let ids: Result<Vec<String>> = (0..4).map(|slot| cx.sleeper(&format!("c{number}x{slot}"))).collect();
        let ids = ids?;
        let addresses: Result<std::collections::BTreeSet<String>> = ids.iter().map(|id| address(cx, id)).collect();
        same!(addresses?.len(), 4, "different addresses of containers that run at once");
        for id in ids {
            seen.insert(address(cx, &id)?);
            cx.delete(&format!("/containers/{id}?force=1"))?.status(204)?;
        }
    }
    let stopped = cx.sleeper("stopped")?;
    cx.act(&format!("/containers/{stopped}/stop"))?.status(204)?;
    same!(address(cx, &stopped)?, "", "address of a stopped container");
    Ok(())
}

fn the_network_none_has_only_loopback(cx: &Cx<'_>) -> Result<()> {
    let seen = cx.shell(
        "c",
        "ls /sys/class/net; ip -4 -o addr show lo | grep -o 127.0.0.1/8; ip route | wc -l",
        json!({"HostConfig": {"NetworkMode": "none"}}),
    )?;
    same!(seen, "lo\n127.0.0.1/8\n0", "interfaces, address, routes");
    Ok(())
}

fn the_network_host_is_the_machines(cx: &Cx<'_>) -> Result<()> {
    let own = std::fs::read_link("/proc/self/ns/net")?.display().to_string();
    same!(
        cx.shell("c", "readlink /proc/self/ns/net", json!({"HostConfig": {"NetworkMode": "host"}}))?,
        own,
        "network namespace"
    );
    let info = cx.get("/info")?.json()?;
    same!(cx.shell("d", "hostname", json!({"HostConfig": {"NetworkMode": "host"}}))?, text(&info["Name"]), "host name");
    Ok(())
}

fn a_container_can_share_anothers_network(cx: &Cx<'_>) -> Result<()> {
    let first = server(cx, "server", json!({}))?;
    ask(cx, &format!("{}:80", address(cx, &first)?))?;
    let shared = json!({"HostConfig": {"NetworkMode": format!("container:{}", cx.name("server"))}});
    let line = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 127.0.0.1 80";
    let seen = cx.shell("c", line, shared)?;
    ensure!(seen.contains(HELLO), "{seen}");
    let missing = cx.try_create("d", json!({"HostConfig": {"NetworkMode": "container:nosuchcontainer"}}))?;
    let missing = if missing.status == 201 { cx.act(&format!("/containers/{}/start", cx.name("d")))? } else { missing };
    ensure!(
        missing.status >= 400 && missing.text().contains("nosuchcontainer"),
        "{} {}",
        missing.status,
        missing.text()
    );
    Ok(())
}

fn published(port: &str) -> Value {
    json!({"PortBindings": {"80/tcp": [{"HostPort": port}]}})
}

fn a_published_port_answers_on_this_machine(cx: &Cx<'_>) -> Result<()> {
    let id = server(cx, "c", published("18081"))?;
    same!(bound_port(cx, &id)?, "18081", "port");
    ask(cx, "127.0.0.1:18081")?;
    let gateway = text(&cx.inspect(&id)?["NetworkSettings"]["Networks"]["bridge"]["Gateway"]);
    ask(cx, &format!("{gateway}:18081"))?;
    Ok(())
}

fn a_published_udp_port_answers(cx: &Cx<'_>) -> Result<()> {
    let host = json!({"PortBindings": {"80/udp": [{"HostPort": "18053"}]}});
    let spec = json!({"Image": "shoal/clock:1.0", "Env": ["CLOCK_PORT=80"], "ExposedPorts": {"80/udp": {}}, "HostConfig": host});
    cx.run("c", spec)?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    cx.until("a datagram comes back", || {
        socket.send_to(b"hello", "127.0.0.1:18053")?;
        let mut buffer = [0; 100];
        let (count, _) = socket.recv_from(&mut buffer)?;
        ensure!(buffer[..count].starts_with(HELLO.as_bytes()), "{:?}", String::from_utf8_lossy(&buffer[..count]));
        Ok(())
    })
}

fn a_port_is_published_once(cx: &Cx<'_>) -> Result<()> {
    server(cx, "c", published("18082"))?;
    let second = cx.create(
        "d",
        json!({"Cmd": ["sleep", "1000"], "ExposedPorts": {"80/tcp": {}}, "HostConfig": published("18082")}),
    )?;
    let answer = cx.act(&format!("/containers/{second}/start"))?;
    ensure!(
        answer.status >= 400 && answer.text().contains("18082") && answer.text().contains("already"),
        "{} {}",
        answer.status,
        answer.text()
    );
    let state = cx.inspect(&second)?["State"].clone();
    same!((state["Running"].as_bool(), state["Status"].as_str()), (Some(false), Some("created")), "state");
    cx.delete(&format!("/containers/{}?force=1", cx.name("c")))?.status(204)?;
    cx.act(&format!("/containers/{second}/start"))?.status(204).map(drop)
}

fn a_free_port_is_chosen(cx: &Cx<'_>) -> Result<()> {
    let first = server(cx, "c", published(""))?;
    let second = server(cx, "d", json!({"PublishAllPorts": true}))?;
    let (one, two) = (bound_port(cx, &first)?, bound_port(cx, &second)?);
    ensure!(one != two && one.parse::<u16>()? > 1024 && two.parse::<u16>()? > 1024, "ports {one} and {two}");
    ask(cx, &format!("127.0.0.1:{two}"))?;
    Ok(())
}

fn published_ports_show_in_lists(cx: &Cx<'_>) -> Result<()> {
    let id = server(cx, "c", published("18083"))?;
    let ports = cx.engine.list("/containers/json", &json!({"id": [id]}))?[0]["Ports"].clone();
    let v4 = ports.as_array().into_iter().flatten().find(|port| port["IP"] == "0.0.0.0").cloned().unwrap_or_default();
    same!(v4, json!({"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 18083, "Type": "tcp"}), "port of {ports}");
    same!(cx.engine.list("/containers/json", &json!({"publish": ["18083"]}))?.len(), 1, "found by published port");
    same!(
        cx.engine.list("/containers/json", &json!({"expose": ["80"], "id": [id]}))?.len(),
        1,
        "found by exposed port"
    );
    Ok(())
}

fn published_ports_go_with_the_container(cx: &Cx<'_>) -> Result<()> {
    let id = server(cx, "c", published("18084"))?;
    ask(cx, "127.0.0.1:18084")?;
    cx.act(&format!("/containers/{id}/stop"))?.status(204)?;
    ensure!(
        TcpStream::connect_timeout(&"127.0.0.1:18084".parse()?, Duration::from_secs(2)).is_err(),
        "the port still answers"
    );
    cx.act(&format!("/containers/{id}/start"))?.status(204)?;
    ask(cx, "127.0.0.1:18084")?;
    Ok(())
}

fn a_port_of_one_address_answers_there_only(cx: &Cx<'_>) -> Result<()> {
    let host = json!({"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18085"}]}});
    let id = server(cx, "c", host)?;
    ask(cx, "127.0.0.1:18085")?;
    let gateway = text(&cx.inspect(&id)?["NetworkSettings"]["Networks"]["bridge"]["Gateway"]);
    ensure!(
        TcpStream::connect_timeout(&format!("{gateway}:18085").parse()?, Duration::from_secs(1)).is_err(),
        "it answers elsewhere too"
    );
    Ok(())
}

fn containers_reach_published_ports_too(cx: &Cx<'_>) -> Result<()> {
    let id = server(cx, "c", published("18086"))?;
    ask(cx, "127.0.0.1:18086")?;
    let gateway = text(&cx.inspect(&id)?["NetworkSettings"]["Networks"]["bridge"]["Gateway"]);
    cx.sleeper("client")?;
    for name in ["client", "c"] {
        ask_inside(cx, &cx.name(name), &gateway, 18086)?;
    }
    Ok(())
}
