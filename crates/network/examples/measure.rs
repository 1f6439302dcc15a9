//! What an endpoint costs, beside what its parts cost bare. Runs in a network namespace of its own; needs root.
//!
//! `cargo run --release -p shoal-network --example measure`

use std::{
    process::Command,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};
use shoal_network::{Config, EndpointRequest, HostPorts, NetworkMode, NodeNetwork, PortRequest, Protocol};

const COUNT: usize = 50;

fn main() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("root");
    run("mount --make-rprivate /");
    run("ip link set lo up");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let dir = tempfile::tempdir().expect("a directory");
    let network = NodeNetwork::open(Config::new(dir.path().join("data"), dir.path().join("netns")), vec![]);
    let started = Instant::now();
    let network = network.await.expect("the network opens");
    line("open", started.elapsed(), 1);
    for (what, ports) in [("without ports", false), ("with one published port", true)] {
        let request = move |number: usize| request(number, ports);
        let started = Instant::now();
        for number in 0..COUNT {
            network.create_endpoint(request(number)).await.expect("an endpoint");
        }
        line(&format!("create one after the other, {what}"), started.elapsed(), COUNT);
        let started = Instant::now();
        for number in 0..COUNT {
            network.release_endpoint(&number.to_string()).await.expect("released");
        }
        line(&format!("release one after the other, {what}"), started.elapsed(), COUNT);
        let started = Instant::now();
        all_at_once(&network, |network, number| async move {
            network.create_endpoint(request(number)).await.expect("an endpoint");
        })
        .await;
        line(&format!("create {COUNT} at once, {what}"), started.elapsed(), COUNT);
        let started = Instant::now();
        all_at_once(&network, |network, number| async move {
            network.release_endpoint(&number.to_string()).await.expect("released");
        })
        .await;
        line(&format!("release {COUNT} at once, {what}"), started.elapsed(), COUNT);
    }
    bare();
}

async fn all_at_once<F: Future<Output = ()> + Send + 'static>(
    network: &NodeNetwork,
    work: impl Fn(NodeNetwork, usize) -> F,
) {
    let tasks: Vec<_> = (0..COUNT).map(|number| tokio::spawn(work(network.clone(), number))).collect();
    for task in tasks {
        task.await.expect("a task");
    }
}

/// The floor: namespaces alone, by system call; and the same endpoint by the `ip` program.
fn bare() {
    let started = Instant::now();
    std::thread::spawn(|| (0..COUNT).for_each(|_| unshare(CloneFlags::CLONE_NEWNET).expect("root")))
        .join()
        .expect("namespaces");
    line("floor: unshare(CLONE_NEWNET) alone", started.elapsed(), COUNT);
    run("mkdir -p /run/netns");
    run("mount -t tmpfs none /run/netns");
    let started = Instant::now();
    for number in 0..COUNT {
        run(&format!("ip netns add n{number}"));
        run(&format!("ip link add v{number} mtu 1500 master shoal0 up type veth peer name eth0 netns n{number}"));
    }
    line("floor: ip netns add, ip link add", started.elapsed(), COUNT);
    let started = Instant::now();
    for number in 0..COUNT {
        run(&format!("ip link delete v{number}"));
        run(&format!("ip netns delete n{number}"));
    }
    line("floor: ip link delete, ip netns delete", started.elapsed(), COUNT);
}

fn request(number: usize, ports: bool) -> EndpointRequest {
    let port =
        PortRequest { protocol: Protocol::Tcp, container_port: 80, host_ip: None, host_ports: HostPorts::Ephemeral };
    EndpointRequest {
        container_id: number.to_string(),
        container_name: number.to_string(),
        mode: NetworkMode::Bridge,
        ports: ports.then_some(port).into_iter().collect(),
        ipv4: None,
        mac: None,
    }
}

fn line(what: &str, took: Duration, count: usize) {
    println!("{what:55} {:>9.2} ms {:>8.2} ms each", took.as_secs_f64() * 1e3, took.as_secs_f64() * 1e3 / count as f64);
}

fn run(command: &str) {
    let words: Vec<_> = command.split_whitespace().collect();
    let status = Command::new(words[0]).args(&words[1..]).status().expect(command);
    assert!(status.success(), "{command}");
}
