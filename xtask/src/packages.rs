//! The Debian packages that the project needs: the only list of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use conformance::client::finish;
use conformance::error::Result;

use crate::shell::{run, say};

/// To build: a linker, and libseccomp as a static library.
const BUILD: &[&str] = &["build-essential", "libseccomp-dev", "pkg-config"];
/// To run an engine in a network namespace of its own.
const RUN: &[&str] = &["iproute2", "nftables", "util-linux"];
/// What the tests' images and registries are made of.
const TEST: &[&str] = &["busybox-static", "docker-registry"];
/// What the measurements compare with. Its client speaks API 1.41 at most and Shoal 1.44 at least, so it is of no use to the tests.
const BENCH: &[&str] = &["docker.io", "containerd", "iptables", "crun"];

/// To run the tests under another kernel.
const EMULATION: &[&str] = &["qemu-system-x86"];

/// Where Debian's maintainer scripts ask whether they may start services.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// For what packages are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// `cargo xtask up`.
    Up,
    /// `cargo xtask test`.
    Test,
    /// `cargo xtask bench`.
    Bench,
    /// `cargo xtask cgroup2`.
    Emulation,
}

/// Installs what is missing, without starting any service that comes along.
///
/// # Errors
/// apt fails.
pub fn ensure(purpose: For) -> Result<()> {
    let lists: &[&[&str]] = match purpose {
        For::Up => &[BUILD, RUN],
        For::Test => &[BUILD, RUN, TEST],
        For::Bench => &[BUILD, RUN, TEST, BENCH],
        For::Emulation => &[BUILD, RUN, TEST, EMULATION],
    };
    let mut missing = Vec::new();
    for package in lists.concat() {
        if !installed(package)? {
            missing.push(package);
        }
    }
    if missing.is_empty() {
        say("every Debian package that is needed is installed");
        return Ok(());
    }
    say(&format!("installing Debian packages: {}", missing.join(" ")));
    let own_policy = !Path::new(POLICY).exists();
    if own_policy {
        fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
    }
    let done = install(&missing);
    if own_policy {
        fs::remove_file(POLICY)?;
    }
    done
}

fn installed(package: &str) -> Result<bool> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${Status}", package]);
    Ok(finish(query, None)?.out == "install ok installed")
}

fn install(packages: &[&str]) -> Result<()> {
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        run(&mut command)
    };
    apt(&["update", "--quiet"])?;
    apt(&[&["install", "--quiet", "--yes", "--no-install-recommends"], packages].concat())
}
