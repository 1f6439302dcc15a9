//! The daemon as a program: what it refuses to start with, where it listens, and what it does on a full disk.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::client::{Done, Engine, finish};
use crate::cx::Cx;
use crate::error::{Failure, Result};
use crate::harness::Tally;
use crate::http::encode;
use crate::images::{self, Image, Layer};
use crate::launch::{Daemon, Kind};
use crate::registry::{Compression, Registry};
use crate::{ensure, same};

/// One story about the binary.
type Story = (&'static str, fn(&Path) -> Result<()>);

const STORIES: &[Story] = &[
    ("an unknown flag is refused", an_unknown_flag_is_refused),
    ("a bad configuration file is refused", a_bad_configuration_file_is_refused),
    ("a configuration file says what flags say", a_configuration_file_says_what_flags_say),
    ("a root in use is refused", a_root_in_use_is_refused),
    ("a socket that is served is refused", a_socket_that_is_served_is_refused),
    ("an open TCP address without TLS is refused", an_open_tcp_address_without_tls_is_refused),
    ("the socket belongs to the group docker", the_socket_belongs_to_the_group_docker),
    ("two addresses are served at once", two_addresses_are_served_at_once),
    ("nothing is left after SIGTERM but the roots", nothing_is_left_after_sigterm),
    ("a full disk is an error, and leaves nothing", a_full_disk_is_an_error_and_leaves_nothing),
];

/// Tells every story.
///
/// # Errors
/// No binary is named.
pub fn run(kind: Option<Kind>) -> Result<Option<Tally>> {
    let Some(Kind::Shoal(binary)) = kind else {
        return Err(Failure::wrong("these stories are about one binary: --shoal BINARY"));
    };
    let mut tally = Tally::default();
    for (name, story) in STORIES {
        match story(&binary) {
            Ok(()) => {
                tally.passed += 1;
                println!("  ok   {name}");
            }
            Err(Failure::Skipped(why)) => {
                tally.skipped += 1;
                println!("  skip {name}: {why}");
            }
            Err(error) => {
                tally.failed += 1;
                println!("  FAIL {name}: {error}");
            }
        }
    }
    Ok(Some(tally))
}

fn daemon(binary: &Path, name: &str) -> Result<Daemon> {
    Daemon::new(Kind::Shoal(binary.to_owned()), name)
}

/// Runs a second daemon, in the namespace of the first, that should not start: one sentence with this in it, and exit code 1.
fn refused(first: &Daemon, binary: &Path, arguments: &[&str], wanted: &str) -> Result<()> {
    let place = first.directory().join("refused").display().to_string();
    let mut command = first.inside("timeout");
    command.arg("60").arg(binary).arg("daemon").args(arguments);
    // one that starts after all must not take the default places
    for (option, value) in [
        ("-H", format!("unix://{place}.sock")),
        ("--data-root", format!("{place}/data")),
        ("--exec-root", format!("{place}/run")),
        ("--pidfile", format!("{place}/pid")),
    ] {
        if !arguments.contains(&option) {
            command.args([option, &value]);
        }
    }
    let Done { code, out, err, .. } = finish(command, None)?;
    let said = format!("{out}{err}");
    let sentences: Vec<&str> = said.lines().filter(|line| !line.contains(" INFO ")).collect();
    ensure!(
        code == 1 && sentences.len() == 1 && sentences[0].contains(wanted),
        "{arguments:?} ended with {code} and said {said:?}, wanted {wanted:?}"
    );
    Ok(())
}

fn an_unknown_flag_is_refused(binary: &Path) -> Result<()> {
    let first = daemon(binary, "flag")?;
    refused(&first, binary, &["--no-such-flag"], "--no-such-flag")?;
    refused(&first, binary, &["--log-level", "loud"], "loud")?;
    refused(&first, binary, &["-H", "ftp://somewhere"], "ftp://somewhere")
}

fn a_bad_configuration_file_is_refused(binary: &Path) -> Result<()> {
    let first = daemon(binary, "config")?;
    let file = first.directory().join("daemon.json").display().to_string();
    refused(&first, binary, &["--config-file", &file], &file)?;
    for (text, wanted) in [
        ("{", "daemon.json"),
        (r#"{"nosuchname": 1}"#, "nosuchname"),
        (r#"{"hosts": 5}"#, "daemon.json"),
        ("[]", "daemon.json"),
    ] {
        fs::write(&file, text)?;
        refused(&first, binary, &["--config-file", &file], wanted)?;
    }
    Ok(())
}

fn a_configuration_file_says_what_flags_say(binary: &Path) -> Result<()> {
    let first = daemon(binary, "file")?;
    let place = first.directory().display().to_string();
    let file = format!("{place}/daemon.json");
    fs::write(
        &file,
        json!({"labels": ["rack=7"], "log-level": "warn", "insecure-registries": ["10.0.0.0/8"]}).to_string(),
    )?;
    let mut first = first.option("--config-file").option(&file);
    let engine = first.start()?;
    let info = engine.get("/info")?.json()?;
    same!(info["Labels"], json!(["rack=7"]), "labels");
    ensure!(
        info["RegistryConfig"]["InsecureRegistryCIDRs"].to_string().contains("10.0.0.0/8"),
        "{}",
        info["RegistryConfig"]
    );
    same!(info["DockerRootDir"], format!("{place}/data"), "root");
    Ok(())
}

fn a_root_in_use_is_refused(binary: &Path) -> Result<()> {
    let mut first = daemon(binary, "root")?;
    first.start()?;
    let place = first.directory().display().to_string();
    for (option, root) in [("--data-root", format!("{place}/data")), ("--exec-root", format!("{place}/run"))] {
        refused(&first, binary, &[option, &root], &root)?;
    }
    ensure!(!Path::new(&format!("{place}/refused.sock")).exists(), "a socket of the refused daemon is left");
    first.start()?.in_swarm().map(drop)
}

fn a_socket_that_is_served_is_refused(binary: &Path) -> Result<()> {
    let mut first = daemon(binary, "socket")?;
    let engine = first.start()?;
    refused(&first, binary, &["-H", &engine.address.url()], "engine.sock")?;
    same!(engine.address.request("GET", "/_ping", &[], b"")?.status, 200, "the first one still answers");
    Ok(())
}

fn an_open_tcp_address_without_tls_is_refused(binary: &Path) -> Result<()> {
    let first = daemon(binary, "tcp")?;
    refused(&first, binary, &["-H", "tcp://0.0.0.0:2375"], "0.0.0.0:2375")
}

fn the_socket_belongs_to_the_group_docker(binary: &Path) -> Result<()> {
    let mut first = daemon(binary, "group")?;
    first.start()?;
    let socket = fs::metadata(first.directory().join("engine.sock"))?;
    ensure!(socket.file_type().is_socket() && socket.mode() & 0o777 == 0o660, "mode {:o}", socket.mode());
    let groups = fs::read_to_string("/etc/group")?;
    let docker = groups.lines().find_map(|line| line.strip_prefix("docker:")?.split(':').nth(1)?.parse::<u32>().ok());
    same!(socket.gid(), docker.unwrap_or(0), "group");
    Ok(())
}

fn two_addresses_are_served_at_once(binary: &Path) -> Result<()> {
    let mut first = daemon(binary, "two")?.option("-H").option("tcp://127.0.0.1:2375");
    first.start()?;
    // the namespace's loopback is not this process's
    let mut busybox = first.inside("busybox");
    busybox.args(["nc", "-w", "30", "127.0.0.1", "2375"]);
    let asked = finish(busybox, Some(b"GET /_ping HTTP/1.0\r\n\r\n"))?;
    ensure!(asked.out.starts_with("HTTP/1.") && asked.out.ends_with("OK"), "over TCP: {asked:?}");
    Ok(())
}

fn nothing_is_left_after_sigterm(binary: &Path) -> Result<()> {
    let mut first = daemon(binary, "left")?;
    let engine = first.start()?;
    images::load_all(&engine)?;
    let cx = Cx::new(&engine, "left".to_owned());
    cx.sleeper("c")?;
    cx.clean()?;
    first.stop()?;
    let place = first.directory();
    ensure!(!place.join("engine.sock").exists() && !place.join("pid").exists(), "the socket or the pidfile is left");
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let left: Vec<&str> = mounts
        .lines()
        .filter(|line| line.contains(&format!("{}/", place.display())) && line.contains("overlay"))
        .collect();
    ensure!(left.is_empty(), "mounts are left: {left:?}");
    Ok(())
}

fn mount(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("mount");
    command.args(arguments);
    finish(command, None)?.ok().map(drop)
}

fn a_full_disk_is_an_error_and_leaves_nothing(binary: &Path) -> Result<()> {
    let mut first = daemon(binary, "full")?;
    let data = first.directory().join("data");
    fs::create_dir_all(&data)?;
    mount(&["-t", "tmpfs", "-o", "size=32m", "none", &data.display().to_string()])?;
    let engine = first.start()?;
    let store =
        Registry::start("full")?.ok_or_else(|| Failure::Skipped("docker-registry is not installed".to_owned()))?;
    let noise: Vec<u8> =
        (0..15_000_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let layer = Layer::default().file("noise", &noise, 0o644).finish();
    let image = Image { reference: "full:1".to_owned(), layers: vec![layer], config: json!({"Cmd": ["true"]}) };
    store.push(&image, "full", "1", Compression::Gzip)?;
    let registry =
        store.again(&first)?.ok_or_else(|| Failure::Skipped("docker-registry is not installed".to_owned()))?;
    let before = used(&data)?;
    let path = format!("/images/create?fromImage={}", encode(&format!("{}/full:1", registry.host)));
    let said = engine.act(&path)?;
    ensure!(
        said.status >= 400 || said.text().contains("errorDetail"),
        "a pull onto a full disk: {} {}",
        said.status,
        said.text()
    );
    ensure!(said.text().to_lowercase().contains("no space left"), "{}", said.text());
    let loaded = engine.load(&image.archive());
    ensure!(loaded.is_err(), "a load onto a full disk: {loaded:?}");
    let cx = Cx::new(&engine, "full".to_owned());
    cx.until("what was half made is gone", || {
        let after = used(&data)?;
        ensure!(after <= before + 2_000_000, "{before} bytes before, {after} after");
        Ok(())
    })?;
    works(&engine)
}

/// Bytes that a directory's files take.
fn used(directory: &Path) -> Result<u64> {
    let mut command = Command::new("du");
    command.args(["-sxB1"]).arg(directory);
    let said = finish(command, None)?.ok()?;
    Ok(said.split_whitespace().next().unwrap_or_default().parse()?)
}

fn works(engine: &Engine) -> Result<()> {
    same!(engine.list("/images/json", &json!({}))?.len(), 0, "images");
    engine.load(&images::busybox()?.archive())?;
    let cx = Cx::new(engine, "works".to_owned());
    same!(cx.shell("c", "echo fine", json!({}))?, "fine", "a container afterwards");
    cx.clean()
}
