//! Network namespaces: made on threads of their own, kept by a mount, entered never by the daemon's other threads.
//!
//! A thread that makes or enters a namespace ends there. All later work in the namespace goes through a netlink socket
//! that the thread opened inside: a socket stays in its namespace whoever uses it.
//!
//! [`Namespace`] is public for those who wire up machines of their own (the lab).

use std::{
    collections::BTreeSet,
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

use shoal_rules::Change;

use crate::{
    error::KernelError,
    kernel::{
        links,
        observe::observe,
        socket::{Family, Netlink},
    },
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
    pub(crate) route: Netlink,
}

/// Namespaces ready to be used.
#[derive(Debug)]
pub struct Pool {
    ready: Arc<Mutex<Vec<Namespace>>>,
    wanted: Sender<()>,
    ipv6: bool,
}

impl Namespace {
    /// A new one with nothing but loopback, down. It lives as long as this value, its [mount](Self::mount) or a process in it.
    ///
    /// # Errors
    /// The kernel refuses: not root, for one.
    pub fn make(ipv6: bool) -> Result<Self, KernelError> {
        on_own_thread(move || Self::make_on_this_thread(ipv6)).map_err(refused("make a network namespace"))
    }

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
    ///
    /// # Errors
    /// None is, or the kernel refuses.
    pub fn enter(path: &Path) -> Result<Self, KernelError> {
        let owned = path.to_owned();
        let work = move || {
            setns(File::open(owned)?, CloneFlags::CLONE_NEWNET)?;
            Self::of_this_thread()
        };
        on_own_thread(work).map_err(refused(format!("enter network namespace {}", path.display())))
    }

    /// Applies changes to its interfaces, in this order. Pairs that are made get their other end in `peer`. On an error what was
    /// done before it stays done.
    ///
    /// # Errors
    /// The first change that the kernel refuses.
    pub fn apply(&self, changes: &[Change], peer: Option<&Self>) -> Result<(), KernelError> {
        links::apply(&self.route, changes, peer.map(AsFd::as_fd), &mut links::Indexes::new())
    }

    /// Takes an interface down, as if its cable were pulled; one that is gone is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn take_down(&self, link: &str) -> Result<(), KernelError> {
        links::take_down(&self.route, link)
    }

    /// The interfaces that are up, of the kinds that we make.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn links_up(&self) -> Result<BTreeSet<String>, KernelError> {
        // one that is down is observed without its MTU
        let links = observe(&self.route)?.state.links;
        Ok(links.into_iter().filter(|(_, link)| link.mtu.is_some()).map(|(name, _)| name).collect())
    }

    /// Mounts it as a file, so that it lives without a process in it.
    ///
    /// # Errors
    /// The file cannot be made, or the kernel refuses.
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
        ready.map_or_else(|| Namespace::make(self.ipv6), Ok)
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

/// Runs work on a thread that has entered the namespace mounted here, and ends there. Processes that it starts are inside.
///
/// # Errors
/// None is mounted, the kernel refuses, or the work fails.
pub fn within<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, KernelError> {
    let owned = path.to_owned();
    let inside = move || {
        setns(File::open(owned)?, CloneFlags::CLONE_NEWNET)?;
        work()
    };
    on_own_thread(inside).map_err(refused(format!("work in network namespace {}", path.display())))
}

/// Unmounts and removes the file. What is not there is no error.
///
/// # Errors
/// The kernel refuses.
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
