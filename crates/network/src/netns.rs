//! Network namespaces: made on threads of their own, kept by a mount, entered never by the daemon's other threads.
//!
//! A thread that makes or enters a namespace ends there. All later work in the namespace goes through a netlink socket
//! that the thread opened inside: a socket stays in its namespace whoever uses it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    thread,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{FsType, statfs},
};

use crate::{
    error::KernelError,
    kernel::socket::{Family, Netlink},
    sysctl,
};

/// Namespaces kept ready. Making one is most of what a container's network costs; a burst beyond these makes its own.
const READY: usize = 4;
const NSFS: FsType = FsType(0x6e73_6673);

/// A network namespace and a socket in it.
#[derive(Debug)]
pub struct Namespace {
    file: OwnedFd,
    /// For its interfaces.
    pub route: Netlink,
}

/// Namespaces ready to be used.
#[derive(Debug)]
pub struct Pool {
    ready: Arc<Mutex<Vec<Namespace>>>,
    wanted: Sender<()>,
    ipv6: bool,
}

impl Namespace {
    /// A new one with nothing but loopback, down. The calling thread is in it from now on. Without `ipv6`, interfaces
    /// that are added have no IPv6, as with Docker; loopback keeps `::1`.
    fn make_on_this_thread(ipv6: bool) -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        match sysctl::ensure("ipv6/conf/default/disable_ipv6", if ipv6 { "0" } else { "1" }) {
            // a kernel without IPv6
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Self::of_this_thread()
    }

    fn of_this_thread() -> io::Result<Self> {
        let file = File::open("/proc/thread-self/ns/net")?.into();
        Ok(Self { file, route: Netlink::open(Family::Route)? })
    }

    /// The namespace that is mounted here.
    pub fn enter(path: &Path) -> Result<Self, KernelError> {
        let owned = path.to_owned();
        let work = move || {
            setns(File::open(owned)?, CloneFlags::CLONE_NEWNET)?;
            Self::of_this_thread()
        };
        on_own_thread(work).map_err(refused(format!("enter network namespace {}", path.display())))
    }

    /// Mounts it as a file, so that it lives without a process in it.
    pub fn mount(&self, path: &Path) -> Result<(), KernelError> {
        let source = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        mount_file(&source, path)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Pool {
    /// A pool; it fills in the background until it is dropped.
    pub fn new(ipv6: bool) -> io::Result<Self> {
        let (wanted, requests) = mpsc::channel();
        let ready = Arc::new(Mutex::new(Vec::new()));
        let shelf = Arc::clone(&ready);
        thread::Builder::new().name("shoal-netns".to_owned()).spawn(move || {
            while requests.recv().is_ok() {
                while lock(&shelf).len() < READY {
                    match Namespace::make_on_this_thread(ipv6) {
                        Ok(namespace) => lock(&shelf).push(namespace),
                        Err(error) => {
                            // whoever needs one tries for itself and reports
                            tracing::debug!(%error, "no network namespace could be made ready");
                            break;
                        }
                    }
                }
            }
        })?;
        let pool = Self { ready, wanted, ipv6 };
        pool.refill();
        Ok(pool)
    }

    /// A namespace with nothing but loopback, down.
    pub fn take(&self) -> Result<Namespace, KernelError> {
        let ready = lock(&self.ready).pop();
        self.refill();
        let ipv6 = self.ipv6;
        ready.map_or_else(
            || on_own_thread(move || Namespace::make_on_this_thread(ipv6)).map_err(refused("make a network namespace")),
            Ok,
        )
    }

    fn refill(&self) {
        if self.wanted.send(()).is_err() {
            tracing::debug!("the thread that makes network namespaces has ended");
        }
    }
}

/// Mounts the namespace of a process.
pub fn mount_of_process(pid: i32, path: &Path) -> Result<(), KernelError> {
    mount_file(Path::new(&format!("/proc/{pid}/ns/net")), path)
}

/// Whether a namespace is mounted here.
pub fn is_mounted(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS)
}

/// Unmounts and removes the file. What is not there is no error.
pub fn unmount(path: &Path) -> Result<(), KernelError> {
    let failed = || refused(format!("unmount network namespace {}", path.display()));
    loop {
        match umount2(path, MntFlags::MNT_DETACH) {
            // one mount may lie over another
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(errno) => return Err(failed()(errno.into())),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed()(error)),
        _ => Ok(()),
    }
}

fn mount_file(source: &Path, path: &Path) -> Result<(), KernelError> {
    let failed = || refused(format!("mount network namespace {}", path.display()));
    OpenOptions::new().create(true).append(true).mode(0o444).open(path).map_err(failed())?;
    let none = None::<&str>;
    mount(Some(source), path, none, MsFlags::MS_BIND, none).map_err(|errno| failed()(errno.into()))
}

/// Runs work that leaves its thread in another namespace.
fn on_own_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let thread = thread::Builder::new().name("shoal-netns".to_owned()).spawn(work)?;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn refused(step: impl Into<String>) -> impl FnOnce(io::Error) -> KernelError {
    let step = step.into();
    move |source| KernelError::Refused { step, source }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
