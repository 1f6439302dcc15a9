//! Connections within the process: bytes in memory in place of TCP and TLS. Who calls is known to the manager as TLS would say it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use shoal_manager::Peer;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc::UnboundedSender;
use tonic::transport::server::Connected;

/// Bytes in flight in each direction.
const WINDOW: usize = 64 << 10;

/// The manager's end of a connection.
#[derive(Debug)]
pub struct Accepted {
    bytes: DuplexStream,
    peer: Peer,
}

/// Where connections come in.
pub type Door = UnboundedSender<io::Result<Accepted>>;

/// Connects to the manager behind `door` as `peer`.
pub fn connect(door: &Door, peer: Peer) -> io::Result<DuplexStream> {
    let (near, far) = duplex(WINDOW);
    door.send(Ok(Accepted { bytes: far, peer })).map_err(|_| io::ErrorKind::ConnectionRefused)?;
    Ok(near)
}

impl Connected for Accepted {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(cx)
    }
}
