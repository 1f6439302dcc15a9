//! Notices when another program removes our firewall table (`nft flush ruleset`, a reload of the host's firewall), and
//! loads it again. Otherwise containers would lose their way out and their published ports until the next restart.

use std::{io, sync::Weak};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::AbortHandle,
};

use crate::node::Inner;

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

/// Runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    task: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Starts watching the daemon's own namespace. To be called within a tokio runtime.
    pub fn start(network: Weak<Inner>) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.add_membership(GROUP)?;
        socket.set_non_blocking(true)?;
        // SAFETY: the socket is the only owner of its descriptor and keeps it open and the same until it is dropped;
        // `AsyncFd` owns the socket and ends its registration before dropping it.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        let socket = registered.map_err(|error| error.into_parts().1)?;
        Ok(Self { task: tokio::spawn(run(socket, network)).abort_handle() })
    }
}

/// Each notice says only that something changed: whether our table is there is asked, not deduced, since notices can
/// get lost and our own changes cause them too.
async fn run(socket: AsyncFd<Socket>, network: Weak<Inner>) {
    loop {
        let heard = socket.async_io(Interest::READABLE, drain).await;
        let Some(network) = network.upgrade() else { return };
        let checked = tokio::task::spawn_blocking(move || network.ensure_firewall()).await;
        match (heard, checked) {
            (Err(error), _) => {
                tracing::warn!(%error, "changes of the firewall are no longer noticed");
                return;
            }
            (_, Ok(Err(error))) => tracing::error!(%error, "the firewall table is gone and cannot be loaded again"),
            _ => {}
        }
    }
}

/// Takes all notices that wait; that some were lost is a notice too.
fn drain(socket: &Socket) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(64 << 10);
    let mut heard = false;
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Ok(_) => heard = true,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => heard = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && heard => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
