//! Pipes and terminals: the supervisor's ends and the process's ends.

use std::fs::File;
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, socketpair,
};
use nix::unistd::{Uid, fchown, pipe2};

use crate::job::ConsoleSize;

/// What a process reads and writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) tty: bool,
    /// Otherwise stdin is `/dev/null`.
    pub(super) stdin: bool,
    /// Otherwise stdout and stderr are `/dev/null`. A terminal's output is always read.
    pub(super) output: bool,
    /// The user that may open `/dev/stdout` again.
    pub(super) uid: u32,
    /// The terminal's size before the command starts.
    pub(super) size: Option<ConsoleSize>,
}

/// The supervisor's ends, not blocking. On a terminal stdin and stdout are the same.
#[derive(Debug, Default)]
pub(super) struct Io {
    pub(super) stdin: Option<File>,
    pub(super) stdout: Option<File>,
    pub(super) stderr: Option<File>,
    /// Where the terminal will come from.
    console: Option<OwnedFd>,
    tty: bool,
}

/// The process's ends.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) console: Option<OwnedFd>,
    /// The supervisor's end again, for the launcher to see the terminal first.
    preview: Option<OwnedFd>,
    size: Option<ConsoleSize>,
    uid: u32,
}

impl Ends {
    pub(super) fn raw(&self) -> Vec<RawFd> {
        let ends = [&self.stdin, &self.stdout, &self.stderr, &self.console, &self.preview];
        ends.into_iter().flatten().map(AsRawFd::as_raw_fd).collect()
    }

    /// Gives the new terminal its size and its owner, before the command can see it. Nothing to do for pipes.
    pub(super) fn prepare_console(&self) -> nix::Result<()> {
        let Some(socket) = &self.preview else { return Ok(()) };
        let master = receive_fd(socket, MsgFlags::MSG_PEEK)?;
        set_size(&master, self.size.unwrap_or(ConsoleSize { height: 0, width: 0 }))?;
        fchown(peer(&master)?, Some(Uid::from_raw(self.uid)), None)
    }
}

/// Makes both ends.
pub(super) fn open(wanted: Wanted) -> nix::Result<(Io, Ends)> {
    let mut io = Io { tty: wanted.tty, ..Io::default() };
    let mut ends = Ends { size: wanted.size, uid: wanted.uid, ..Ends::default() };
    if wanted.tty {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
        ends.preview = Some(ours.try_clone().map_err(io_errno)?);
        (io.console, ends.console) = (Some(ours), Some(theirs));
        return Ok((io, ends));
    }
    let owner = Some(Uid::from_raw(wanted.uid));
    if wanted.stdin {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        fchown(&read, owner, None)?;
        (io.stdin, ends.stdin) = (Some(unblocked(write)?), Some(read));
    } else {
        ends.stdin = Some(null()?);
    }
    for (ours, theirs) in [(&mut io.stdout, &mut ends.stdout), (&mut io.stderr, &mut ends.stderr)] {
        if wanted.output {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            fchown(&write, owner, None)?;
            (*ours, *theirs) = (Some(unblocked(read)?), Some(write));
        } else {
            *theirs = Some(null()?);
        }
    }
    Ok((io, ends))
}

fn null() -> nix::Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/null");
    file.map(OwnedFd::from).map_err(io_errno)
}

fn io_errno(err: std::io::Error) -> Errno {
    Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO))
}

fn unblocked(fd: OwnedFd) -> nix::Result<File> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(fd.into())
}

impl Io {
    /// Takes the terminal that the launched process has made and sent. Nothing to do for pipes.
    pub(super) fn receive_console(&mut self) -> nix::Result<()> {
        let Some(socket) = self.console.take() else { return Ok(()) };
        let master = unblocked(receive_fd(&socket, MsgFlags::empty())?)?;
        self.stdin = Some(master.try_clone().map_err(io_errno)?);
        self.stdout = Some(master);
        Ok(())
    }

    pub(super) fn is_tty(&self) -> bool {
        self.tty
    }

    /// Sets the terminal's size; `false`: there is none.
    pub(super) fn resize(&self, size: ConsoleSize) -> nix::Result<bool> {
        match &self.stdout {
            Some(master) if self.tty => set_size(master, size).map(|()| true),
            _ => Ok(false),
        }
    }
}

/// What a read has given.
pub(super) enum Chunk {
    Data(usize),
    /// Nothing at the moment.
    Empty,
    /// Nobody can write any more.
    End,
}

/// Reads what is there.
pub(super) fn read(file: &mut File, buffer: &mut [u8]) -> Chunk {
    loop {
        return match file.read(buffer) {
            Ok(0) => Chunk::End,
            Ok(len) => Chunk::Data(len),
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => Chunk::Empty,
            // EIO: the last process has closed its terminal
            Err(_) => Chunk::End,
        };
    }
}

fn receive_fd(socket: &OwnedFd, flags: MsgFlags) -> nix::Result<OwnedFd> {
    let mut byte = [0; 64];
    let mut space = nix::cmsg_space!(RawFd);
    let mut iov = [IoSliceMut::new(&mut byte)];
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut iov, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(&fd) = fds.first()
        {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    Err(Errno::EBADMSG)
}

fn set_size(master: &impl AsFd, size: ConsoleSize) -> nix::Result<()> {
    let size = libc::winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize, which outlives the call
    Errno::result(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &size) }).map(drop)
}

/// The process's side of a terminal, opened without a path: the path would be the container's.
fn peer(master: &OwnedFd) -> nix::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags by value and returns a new descriptor
    let fd = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: as above: new, and known to nobody else
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
