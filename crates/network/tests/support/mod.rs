//! A machine for each test: a network and mount namespace of its own, so that the real machine is never touched.

#![allow(dead_code, reason = "each test program uses a part")]

use std::{
    fs::File,
    future::Future,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns, unshare};
use shoal_network::{Config, Endpoint, EndpointRequest, LiveEndpoint, NetworkMode, NodeNetwork, PortRequest, Protocol};
use tempfile::TempDir;

/// Long enough for a loaded machine; no test waits so long for what comes.
const PATIENCE: Duration = Duration::from_secs(10);

/// The machine's directories.
pub struct Machine {
    pub dir: TempDir,
}

/// Runs a test on a machine of its own: all threads it starts are in it.
pub fn on_machine<F: Future<Output = ()>>(test: impl FnOnce(Machine) -> F + Send + 'static) {
    let body = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("root");
        run("mount --make-rprivate /");
        run("ip link set lo up");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let machine = Machine { dir: TempDir::new().expect("a directory") };
        runtime.block_on(test(machine));
    };
    thread::Builder::new().spawn(body).expect("a thread").join().expect("the test");
}

impl Machine {
    pub fn config(&self) -> Config {
        Config::new(self.dir.path().join("data"), self.dir.path().join("netns"))
    }

    pub async fn open(&self, live: &[&Endpoint]) -> NodeNetwork {
        let live = live.iter().map(|endpoint| LiveEndpoint { endpoint: (*endpoint).clone(), pid: None }).collect();
        NodeNetwork::open(self.config(), live).await.expect("the network opens")
    }

    /// A neighbour on a wire: this machine is `192.0.2.1` and `2001:db8::1` to it, it is `.2` and `::2`. Returns the
    /// path of its namespace.
    pub fn add_client(&self) -> PathBuf {
        self.add_neighbour("outer", "192.0.2", "2001:db8:")
    }

    /// A neighbour on a wire whose end here has this name, in a network of its own.
    pub fn add_neighbour(&self, link: &str, net: &'static str, net6: &'static str) -> PathBuf {
        let path = self.dir.path().join(link);
        File::create(&path).expect("a file");
        let mounted = path.clone();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root");
            mount_own_namespace(&mounted);
        })
        .join()
        .expect("a namespace");
        run(&format!("ip link add {link} type veth peer name wire"));
        run(&format!("ip addr add {net}.1/24 dev {link}"));
        run(&format!("ip addr add {net6}:1/64 dev {link} nodad"));
        run(&format!("ip link set {link} up"));
        let file = File::open(&path).expect("the namespace");
        run(&format!("ip link set wire netns /proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        inside(&path, move || {
            run(&format!("ip addr add {net}.2/24 dev wire"));
            run(&format!("ip addr add {net6}:2/64 dev wire nodad"));
            run("ip link set wire up");
            run("ip link set lo up");
        });
        path
    }
}

fn mount_own_namespace(path: &Path) {
    let none = None::<&str>;
    nix::mount::mount(Some("/proc/thread-self/ns/net"), path, none, nix::mount::MsFlags::MS_BIND, none).expect("root");
}

/// A container named after its id.
pub fn container(id: &str) -> EndpointRequest {
    EndpointRequest {
        container_id: id.to_owned(),
        container_name: id.to_owned(),
        mode: NetworkMode::Bridge,
        ports: Vec::new(),
        ipv4: None,
        mac: None,
    }
}

/// `HOST_IP:HOST_PORTS:PORT/PROTOCOL`, as after `-p`; an empty address is any.
pub fn port(host_ip: &str, host_ports: &str, container_port: u16, protocol: Protocol) -> PortRequest {
    let host_ip = (!host_ip.is_empty()).then(|| host_ip.parse().expect("an address"));
    PortRequest { protocol, container_port, host_ip, host_ports: host_ports.parse().expect("ports") }
}

/// A container that publishes these.
pub fn publishing(id: &str, ports: Vec<PortRequest>) -> EndpointRequest {
    EndpointRequest { ports, ..container(id) }
}

/// The container's IPv4 address.
pub fn ip_of(endpoint: &Endpoint) -> std::net::Ipv4Addr {
    endpoint.bridge.as_ref().expect("a place on the bridge").ipv4
}

/// The namespace's path.
pub fn netns_of(endpoint: &Endpoint) -> &Path {
    endpoint.netns.as_deref().expect("a namespace")
}

/// Serves in the namespace: each connection is told the client's address, then its own bytes back.
pub fn serve_tcp(netns: &Path, at: &str) {
    let at: SocketAddr = at.parse().expect("an address");
    let listener = inside(netns, move || TcpListener::bind(at).expect("a listener"));
    thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            thread::spawn(move || -> io::Result<()> {
                let peer = connection.peer_addr()?.ip().to_string();
                writeln!(connection, "{peer}")?;
                let mut echo = connection.try_clone()?;
                io::copy(&mut connection, &mut echo).map(drop)
            });
        }
    });
}

/// Answers each datagram with `name` and the client's address.
pub fn serve_udp(netns: &Path, at: &str, name: &'static str) {
    let at: SocketAddr = at.parse().expect("an address");
    let socket = inside(netns, move || UdpSocket::bind(at).expect("a socket"));
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            if socket.send_to(format!("{name} {}", client.ip()).as_bytes(), client).is_err() {
                return;
            }
        }
    });
}

/// Connects from the calling thread's namespace; returns the address that the server saw, and the connection.
pub fn connect(to: &str) -> io::Result<(String, TcpStream)> {
    let mut connection = TcpStream::connect_timeout(&to.parse().expect("an address"), PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut seen = String::new();
    let mut byte = [0];
    while connection.read(&mut byte)? == 1 && byte[0] != b'\n' {
        seen.push(char::from(byte[0]));
    }
    Ok((seen, connection))
}

/// A round trip on an open connection.
pub fn echo(connection: &mut TcpStream, text: &str) -> io::Result<String> {
    connection.write_all(text.as_bytes())?;
    let mut back = vec![0; text.len()];
    connection.read_exact(&mut back)?;
    Ok(String::from_utf8_lossy(&back).into_owned())
}

/// Waits until so many interfaces are ports of the bridge.
pub fn wait_for_ports(count: usize) {
    wait_until(|| run("ip -o link show master shoal0").lines().count() == count);
}

/// Waits until it is so.
pub fn wait_until(so: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !so() {
        assert!(started.elapsed() < PATIENCE, "waited too long");
        thread::yield_now();
    }
}

/// Whether a connection is refused or dropped within a short time. For what must not come there is nothing to wait for.
pub fn unreachable(to: &str) -> bool {
    TcpStream::connect_timeout(&to.parse().expect("an address"), Duration::from_millis(400)).is_err()
}

/// Asks by datagram from this socket until there is an answer.
pub fn ask_udp(socket: &UdpSocket, to: &str) -> String {
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let mut buffer = [0; 1500];
    for _ in 0..50 {
        // an error here is a refusal of the one before
        if socket.send_to(b"?", to).is_ok()
            && let Ok(length) = socket.recv(&mut buffer)
        {
            return String::from_utf8_lossy(&buffer[..length]).into_owned();
        }
    }
    panic!("no answer from {to}");
}

/// Runs work in the namespace that is mounted here.
pub fn inside<T: Send + 'static>(path: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(path).expect("a namespace");
    thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).expect("root");
        work()
    })
    .join()
    .expect("work in a namespace")
}

/// Runs a command that must succeed; returns what it prints.
pub fn run(command: &str) -> String {
    let words: Vec<_> = command.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().expect(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
