//! Options of a container, each seen from inside.

use serde_json::{Value, json};

use crate::cx::{Cx, text};
use crate::error::Result;
use crate::harness::Test;
use crate::{case, ensure, same};

/// The tests of this part.
pub const TESTS: &[Test] = &[
    case!(Engine, command_and_entrypoint_combine_as_documented),
    case!(Engine, environment_adds_to_the_images),
    case!(Engine, the_working_directory_is_made),
    case!(Engine, users_are_found_in_the_images_files),
    case!(Engine, an_unknown_user_is_refused),
    case!(Engine, hostname_and_domain_are_set),
    case!(Engine, hosts_and_resolver_files_are_written),
    case!(Engine, binds_are_mounted),
    case!(Engine, a_read_only_root_has_writable_mounts),
    case!(Engine, tmpfs_has_its_options),
    case!(Engine, shared_memory_has_its_size),
    case!(Engine, limits_are_in_the_control_groups),
    case!(Engine, the_processes_limit_holds),
    case!(Engine, resource_limits_are_set),
    case!(Engine, sysctls_are_set),
    case!(Engine, devices_can_be_added),
    case!(Engine, init_is_process_1_and_reaps),
    case!(Engine, a_terminal_is_one),
    case!(Engine, oom_score_is_set),
    case!(Engine, group_add_adds_groups),
    case!(Engine, unsupported_options_are_named),
];

fn command_and_entrypoint_combine_as_documented(cx: &Cx<'_>) -> Result<()> {
    let line = |name: &str, spec: Value| -> Result<String> { cx.shell_out(name, spec) };
    same!(line("cmd", json!({"Cmd": ["echo", "a"]}))?, "a", "a command");
    same!(line("both", json!({"Entrypoint": ["echo", "a"], "Cmd": ["b"]}))?, "a b", "both");
    same!(line("text", json!({"Entrypoint": "echo", "Cmd": "b"}))?, "b", "as texts");
    same!(line("entry", json!({"Entrypoint": ["echo", "alone"]}))?, "alone", "an entrypoint drops the image's command");
    Ok(())
}

impl Cx<'_> {
    /// Runs a container to its end; what it printed, if it succeeded.
    fn shell_out(&self, name: &str, spec: Value) -> Result<String> {
        let (code, output) = self.run_to_end(name, spec)?;
        ensure!(code == 0, "ended with {code}: {output:?}");
        Ok(output.out.trim_end().to_owned())
    }
}

fn environment_adds_to_the_images(cx: &Cx<'_>) -> Result<()> {
    let spec = json!({"Image": "shoal/clock:1.0", "Entrypoint": ["/bin/env"], "Env": ["A=1", "CLOCK_VERSION=mine", "EMPTY=", "PATH"]});
    let seen = cx.shell_out("c", spec)?;
    let mut lines: Vec<&str> = seen.lines().filter(|line| !line.starts_with("HOSTNAME=")).collect();
    lines.sort_unstable();
    // a name without a value takes the image's variable away
    same!(lines, ["A=1", "CLOCK_VERSION=mine", "EMPTY=", "HOME=/root"], "environment");
    Ok(())
}

fn the_working_directory_is_made(cx: &Cx<'_>) -> Result<()> {
    same!(cx.shell("c", "pwd", json!({"WorkingDir": "/deep/in/there"}))?, "/deep/in/there", "directory");
    same!(cx.shell("d", "pwd", json!({}))?, "/", "directory by default");
    Ok(())
}

fn users_are_found_in_the_images_files(cx: &Cx<'_>) -> Result<()> {
    for (number, (user, wanted)) in [
        ("", "uid=0(root) gid=0(root) groups=0(root)"),
        ("guest", "uid=405(guest) gid=100(users) groups=100(users),250(extra)"),
        ("405", "uid=405(guest) gid=100(users) groups=100(users),250(extra)"),
        ("405:0", "uid=405(guest) gid=0(root) groups=0(root)"),
        ("guest:extra", "uid=405(guest) gid=250(extra) groups=250(extra)"),
        ("1234", "uid=1234 gid=0(root) groups=0(root)"),
        ("1234:5678", "uid=1234 gid=5678 groups=5678"),
    ]
    .iter()
    .enumerate()
    {
        same!(cx.shell(&format!("c{number}"), "id", json!({"User": user}))?, *wanted, "user {user:?}");
    }
    same!(cx.shell("home", "echo $HOME", json!({"User": "guest"}))?, "/home", "home");
    Ok(())
}

fn an_unknown_user_is_refused(cx: &Cx<'_>) -> Result<()> {
    let id = cx.create("c", json!({"User": "nosuchuser", "Cmd": ["true"]}))?;
    let answer = cx.act(&format!("/containers/{id}/start"))?;
    ensure!(
        answer.status >= 400
            && answer.text().contains("unable to find user nosuchuser: no matching entries in passwd file"),
        "{} {}",
        answer.status,
        answer.text()
    );
    same!(cx.inspect(&id)?["State"]["Running"], false, "whether it runs");
    Ok(())
}

fn hostname_and_domain_are_set(cx: &Cx<'_>) -> Result<()> {
    let id = cx.run("c", json!({"Cmd": ["hostname"]}))?;
    cx.wait(&id)?;
    same!(cx.logs(&id, "stdout=1")?.out.trim(), &id[..12], "host name by default");
    let settings = json!({"Hostname": "web", "Domainname": "example.org"});
    same!(
        cx.shell("d", "hostname; cat /proc/sys/kernel/domainname; grep -c 'web.example.org web' /etc/hosts", settings)?,
        "web\nexample.org\n1",
        "names"
    );
    Ok(())
}

fn hosts_and_resolver_files_are_written(cx: &Cx<'_>) -> Result<()> {
    let settings = json!({"HostConfig": {"ExtraHosts": ["one:10.1.1.1", "two:fe80::1"], "Dns": ["192.0.2.53"], "DnsSearch": ["example.org"], "DnsOptions": ["ndots:3"]}});
    let seen = cx.shell("c", "cat /etc/hosts | tr '\\t' ' '; cat /etc/resolv.conf", settings)?;
    for wanted in [
        "127.0.0.1 localhost",
        "::1 localhost ip6-localhost ip6-loopback",
        "10.1.1.1 one",
        "fe80::1 two",
        "nameserver 192.0.2.53",
        "search example.org",
        "options ndots:3",
    ] {
        ensure!(seen.contains(wanted), "{wanted:?} is not in {seen}");
    }
    let id = cx.sleeper("d")?;
    let address = text(&cx.inspect(&id)?["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]);
    let (_, hosts) = cx.exec(&id, &["cat", "/etc/hosts"], json!({}))?;
    ensure!(hosts.out.contains(&format!("{address}\t{}", &id[..12])), "{address} is not in {}", hosts.out);
    let (code, _) =
        cx.exec(&id, &["sh", "-c", "echo 10.9.9.9 mine >>/etc/hosts && grep mine /etc/hosts"], json!({}))?;
    same!(code, 0, "writing to /etc/hosts");
    Ok(())
}

fn binds_are_mounted(cx: &Cx<'_>) -> Result<()> {
    let directory = std::env::temp_dir().join(cx.name("bind"));
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("file"), "from outside\n")?;
    let path = directory.display().to_string();
    let binds = json!({"HostConfig": {"Binds": [format!("{path}:/rw"), format!("{path}:/ro:ro"), format!("{path}/made:/made")]}});
    let seen = cx.shell(
        "c",
        "cat /rw/file; echo inside >/rw/new; (touch /ro/x) 2>/dev/null || echo read-only; touch /made/y",
        binds,
    )?;
    same!(seen, "from outside\nread-only", "seen inside");
    same!(std::fs::read_to_string(directory.join("new"))?, "inside\n", "written from inside");
    ensure!(directory.join("made/y").exists(), "a missing source of a bind is made");
    let mounts =
        json!({"HostConfig": {"Mounts": [{"Type": "bind", "Source": path, "Target": "/m", "ReadOnly": true}]}});
    let id = cx.run("d", json!({"Cmd": ["sleep", "1000"], "HostConfig": mounts["HostConfig"]}))?;
    let mount = cx.inspect(&id)?["Mounts"][0].clone();
    same!(
        (text(&mount["Type"]), text(&mount["Source"]), text(&mount["Destination"]), mount["RW"].as_bool()),
        ("bind".to_owned(), path, "/m".to_owned(), Some(false)),
        "mount"
    );
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

fn a_read_only_root_has_writable_mounts(cx: &Cx<'_>) -> Result<()> {
    let settings = json!({"HostConfig": {"ReadonlyRootfs": true, "Tmpfs": {"/tmp": ""}}});
    let seen = cx.shell("c", "(touch /x) 2>/dev/null || echo read-only; touch /tmp/x && echo writable", settings)?;
    same!(seen, "read-only\nwritable", "seen inside");
    Ok(())
}

fn tmpfs_has_its_options(cx: &Cx<'_>) -> Result<()> {
    let settings = json!({"HostConfig": {"Tmpfs": {"/t": "size=1m,mode=1770,exec"}}});
    let seen = cx.shell("c", "grep ' /t tmpfs' /proc/mounts; stat -c %a /t", settings)?;
    ensure!(
        seen.contains("size=1024k")
            && seen.contains("nosuid")
            && seen.contains("nodev")
            && !seen.contains("noexec")
            && seen.ends_with("1770"),
        "{seen}"
    );
    let plain = cx.shell("d", "grep ' /t tmpfs' /proc/mounts", json!({"HostConfig": {"Tmpfs": {"/t": ""}}}))?;
    ensure!(plain.contains("noexec"), "{plain}");
    Ok(())
}

fn shared_memory_has_its_size(cx: &Cx<'_>) -> Result<()> {
    let line = "grep ' /dev/shm ' /proc/mounts | grep -o 'size=[0-9]*k'";
    same!(cx.shell("c", line, json!({}))?, "size=65536k", "by default");
    same!(cx.shell("d", line, json!({"HostConfig": {"ShmSize": 1_048_576}}))?, "size=1024k", "on demand");
    Ok(())
}

/// Reads the container's own limits, of either version of control groups.
const LIMITS: &str = "cd /sys/fs/cgroup; if [ -e memory ]; then cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.shares pids/pids.max; \
    else cat memory.max; cut -d' ' -f1 cpu.max; echo shares; cat pids.max; fi";

fn limits_are_in_the_control_groups(cx: &Cx<'_>) -> Result<()> {
    let settings =
        json!({"HostConfig": {"Memory": 33_554_432, "NanoCpus": 1_500_000_000, "CpuShares": 512, "PidsLimit": 77}});
    let seen = cx.shell("c", LIMITS, settings)?;
    let lines: Vec<&str> = seen.lines().collect();
    same!((lines.len(), lines[0], lines[1], lines[3]), (4, "33554432", "150000", "77"), "limits {seen}");
    ensure!(["512", "shares"].contains(&lines[2]), "shares in {seen}");
    Ok(())
}

fn the_processes_limit_holds(cx: &Cx<'_>) -> Result<()> {
    let line = "i=0; while [ $i -lt 30 ]; do sleep 5 & i=$((i + 1)); done; wait";
    let (code, output) = cx.run_to_end("c", json!({"Cmd": ["sh", "-c", line], "HostConfig": {"PidsLimit": 10}}))?;
    ensure!(code != 0 && output.err.contains("an't fork"), "ended with {code}: {output:?}");
    Ok(())
}

fn resource_limits_are_set(cx: &Cx<'_>) -> Result<()> {
    let settings = json!({"HostConfig": {"Ulimits": [{"Name": "nofile", "Soft": 123, "Hard": 456}]}});
    same!(cx.shell("c", "ulimit -Sn; ulimit -Hn", settings)?, "123\n456", "limits");
    Ok(())
}

fn sysctls_are_set(cx: &Cx<'_>) -> Result<()> {
    let settings =
        json!({"HostConfig": {"Sysctls": {"net.ipv4.ip_unprivileged_port_start": "99", "kernel.msgmax": "9000"}}});
    same!(
        cx.shell("c", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax", settings)?,
        "99\n9000",
        "values"
    );
    let id = cx.try_create("d", json!({"Cmd": ["true"], "HostConfig": {"Sysctls": {"vm.swappiness": "1"}}}))?;
    if id.status == 201 {
        let answer = cx.act(&format!("/containers/{}/start", cx.name("d")))?;
        ensure!(answer.status >= 400 && answer.text().contains("vm.swappiness"), "{} {}", answer.status, answer.text());
    }
    Ok(())
}

fn devices_can_be_added(cx: &Cx<'_>) -> Result<()> {
    let device = json!({"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/mine", "CgroupPermissions": "r"});
    let seen = cx.shell("c", "test -c /dev/mine && dd if=/dev/mine of=/dev/null bs=8192 count=1 2>/dev/null; echo $?; (echo x >/dev/mine) 2>/dev/null || echo refused", json!({"HostConfig": {"Devices": [device]}}))?;
    ensure!(seen.ends_with("refused") && seen.starts_with(['0', '1']), "{seen}");
    Ok(())
}

fn init_is_process_1_and_reaps(cx: &Cx<'_>) -> Result<()> {
    // the orphan ends after a while, and nobody but process 1 can take note of it
    let line = "(sleep 0.1 &); while ps -o stat,comm | grep -qE '^Z|sleep'; do usleep 20000; done; echo reaped; \
        test $(cat /proc/1/comm) != sh && echo init";
    let (_, output) = cx.run_to_end("c", json!({"Cmd": ["sh", "-c", line], "HostConfig": {"Init": true}}))?;
    same!(output.out, "reaped\ninit\n", "the orphan, and what process 1 is");
    let (code, _) = cx.run_to_end("d", json!({"Cmd": ["sh", "-c", "exit 9"], "HostConfig": {"Init": true}}))?;
    same!(code, 9, "exit code through init");
    let id = cx.ready(
        "e",
        "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done",
        json!({"HostConfig": {"Init": true}}),
    )?;
    cx.act(&format!("/containers/{id}/stop?t=20"))?.status(204)?;
    same!(cx.inspect(&id)?["State"]["ExitCode"], 5, "exit code after a signal through init");
    Ok(())
}

fn a_terminal_is_one(cx: &Cx<'_>) -> Result<()> {
    let id = cx.run("c", json!({"Tty": true, "Cmd": ["sh", "-c", "test -t 0 && test -t 1 && echo $TERM; tty; test -c /dev/console && echo console"]}))?;
    cx.wait(&id)?;
    let seen = cx.get(&format!("/containers/{id}/logs?stdout=1"))?.ok()?.text();
    ensure!(
        seen.starts_with("xterm\r\n/dev/pts/0\r\nconsole") || seen.starts_with("xterm\r\n/dev/console\r\nconsole"),
        "{seen:?}"
    );
    Ok(())
}

fn oom_score_is_set(cx: &Cx<'_>) -> Result<()> {
    same!(cx.shell("c", "cat /proc/self/oom_score_adj", json!({"HostConfig": {"OomScoreAdj": 321}}))?, "321", "score");
    Ok(())
}

fn group_add_adds_groups(cx: &Cx<'_>) -> Result<()> {
    same!(
        cx.shell("c", "id -G", json!({"User": "405", "HostConfig": {"GroupAdd": ["0", "777"]}}))?,
        "100 0 250 777",
        "groups"
    );
    Ok(())
}

fn unsupported_options_are_named(cx: &Cx<'_>) -> Result<()> {
    for (change, word) in [
        (json!({"HostConfig": {"LogConfig": {"Type": "nosuchdriver"}}}), "nosuchdriver"),
        (json!({"HostConfig": {"Runtime": "nosuchruntime"}}), "nosuchruntime"),
        (json!({"HostConfig": {"NetworkMode": "nosuchnetwork"}}), "nosuchnetwork"),
        (json!({"HostConfig": {"SecurityOpt": ["nosuchoption"]}}), "nosuchoption"),
    ] {
        let mut answer = cx.try_create("c", change.clone())?;
        if answer.status == 201 {
            answer = cx.act(&format!("/containers/{}/start", cx.name("c")))?;
        }
        ensure!(answer.status >= 400 && answer.text().contains(word), "{change}: {} {}", answer.status, answer.text());
        cx.delete(&format!("/containers/{}?force=1", cx.name("c")))?;
    }
    Ok(())
}
