//! The network between machines: every message and every chunk of a stream takes its time, and links can be cut, in one
//! direction or both. Messages may also be lost, doubled, and overtake each other.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use shoal_manager::Peer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tonic::transport::server::Connected;

use crate::place::{self, NOWHERE, Place};
use crate::world::World;

/// Bytes in flight in one direction of a stream.
const WINDOW: usize = 64 * 1024;
/// How long a connection is tried.
const SYN: Duration = Duration::from_secs(4);

/// The network. Cheap to clone.
#[derive(Clone)]
pub struct Net {
    world: World,
    inner: Arc<Mutex<Inner>>,
    /// Wakes those that wait for a link.
    mended: watch::Sender<()>,
}

struct Inner {
    addrs: BTreeMap<String, Place>,
    cut: BTreeSet<(Place, Place)>,
    /// Machines without power: they do not even refuse.
    dark: BTreeSet<Place>,
    quality: Quality,
    listeners: BTreeMap<Place, mpsc::UnboundedSender<Incoming>>,
    streams: Vec<Stream>,
}

/// How well the network works.
#[derive(Debug, Clone, Copy)]
pub struct Quality {
    /// Milliseconds that a message takes: from, up to.
    pub delay: (u64, u64),
    /// The share of messages that take much longer.
    pub late: f64,
    /// The share of messages that are lost.
    pub loss: f64,
    /// The share of messages that arrive twice.
    pub doubled: f64,
}

struct Stream {
    ends: (Place, Place),
    pumps: [AbortHandle; 2],
}

/// The end of a stream at the machine that was called. Who calls is known, as TLS would say it.
#[derive(Debug)]
pub struct Incoming {
    io: DuplexStream,
    peer: Peer,
}

impl Quality {
    /// A good network.
    pub const GOOD: Self = Self { delay: (0, 3), late: 0.0, loss: 0.0, doubled: 0.0 };
}

impl Net {
    /// A good network without machines.
    pub fn new(world: &World) -> Self {
        let inner = Inner {
            addrs: BTreeMap::new(),
            cut: BTreeSet::new(),
            dark: BTreeSet::new(),
            quality: Quality::GOOD,
            listeners: BTreeMap::new(),
            streams: Vec::new(),
        };
        Self { world: world.clone(), inner: Arc::new(Mutex::new(inner)), mended: watch::channel(()).0 }
    }

    // --- what chaos does ---

    /// Sets how well all links work.
    pub fn set_quality(&self, quality: Quality) {
        self.lock().quality = quality;
    }

    /// Cuts the way from one machine to another. With `reset`, streams over it break at once, else they hang.
    pub fn cut(&self, from: Place, to: Place, reset: bool) {
        let mut inner = self.lock();
        inner.cut.insert((from, to));
        if reset {
            inner.streams.retain(|s| !(s.joins(from) && s.joins(to) && s.stop()));
        }
    }

    /// Mends all links. Streams that hung go on.
    pub fn mend(&self) {
        self.lock().cut.clear();
        self.mended.send_replace(());
    }

    /// The machine's processes are gone, and with `dark` so is its power. Streams break; the other ends notice at once,
    /// or, where it is dark, only by what does not come.
    pub fn kill(&self, place: Place, dark: bool) {
        let mut inner = self.lock();
        inner.listeners.remove(&place);
        if dark {
            inner.dark.insert(place);
        }
        let stopped = if dark { Stream::hang } else { Stream::stop };
        inner.streams.retain(|s| !(s.joins(place) && stopped(s)));
    }

    // --- what machines do ---

    /// Nobody listens there any more, and the streams of those who called are over.
    pub fn deafen(&self, place: Place) {
        let mut inner = self.lock();
        inner.listeners.remove(&place);
        inner.streams.retain(|s| !(s.ends.1 == place && s.stop()));
    }

    /// The machine is there, under `addr` and no other.
    pub fn appear(&self, place: Place, addr: &str) {
        let mut inner = self.lock();
        // What a process before had open is known to nobody here.
        inner.streams.retain(|s| !(s.joins(place) && s.stop()));
        inner.addrs.retain(|_, p| *p != place);
        inner.addrs.insert(addr.to_owned(), place);
        inner.dark.remove(&place);
    }

    /// Streams that come in from now on.
    pub fn listen(&self, place: Place) -> mpsc::UnboundedReceiver<Incoming> {
        let (tx, rx) = mpsc::unbounded_channel();
        self.lock().listeners.insert(place, tx);
        rx
    }

    /// Whose address this is.
    pub fn at(&self, addr: &str) -> Option<Place> {
        self.lock().addrs.get(addr).copied()
    }

    /// Whether something that is sent now arrives.
    pub fn is_open(&self, from: Place, to: Place) -> bool {
        let inner = self.lock();
        !inner.cut.contains(&(from, to)) && !inner.dark.contains(&to) && !inner.dark.contains(&from)
    }

    /// Brings one message over. Whether it arrives; if not, after a while.
    pub async fn carry(&self, from: Place, to: Place) -> bool {
        let quality = self.lock().quality;
        tokio::time::sleep(self.delay(quality)).await;
        from == to || self.is_open(from, to) && !self.world.chance(quality.loss)
    }

    /// Whether a message arrives twice.
    pub fn doubles(&self) -> bool {
        let share = self.lock().quality.doubled;
        share > 0.0 && self.world.chance(share)
    }

    fn delay(&self, quality: Quality) -> Duration {
        let (from, to) = quality.delay;
        let much = if quality.late > 0.0 && self.world.chance(quality.late) { 50 } else { 1 };
        self.world.millis(from * much..to * much + 1)
    }

    /// Opens a stream to whoever listens on `addr`, as `peer`.
    ///
    /// # Errors
    /// Nobody does, or the way there is cut.
    pub async fn connect(&self, from: Place, addr: &str, peer: Peer) -> io::Result<DuplexStream> {
        let quality = self.lock().quality;
        tokio::time::sleep(self.delay(quality) * 2).await;
        let timed_out = || io::Error::from(io::ErrorKind::TimedOut);
        let open = async {
            loop {
                let mut mended = self.mended.subscribe();
                // Nobody answers for an address that nobody has.
                if let Some(to) = self.at(addr)
                    && self.is_open(from, to)
                    && self.is_open(to, from)
                {
                    return to;
                }
                drop(tokio::time::timeout(Duration::from_secs(1), mended.changed()).await);
            }
        };
        let to = tokio::time::timeout(SYN, open).await.map_err(|_| timed_out())?;
        let (near, near_far) = duplex(WINDOW);
        let (far, far_near) = duplex(WINDOW);
        let listener = self.lock().listeners.get(&to).cloned();
        let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
        listener.send(Incoming { io: far, peer }).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        let (near_read, near_write) = tokio::io::split(near_far);
        let (far_read, far_write) = tokio::io::split(far_near);
        let there = place::spawn(NOWHERE, self.clone().pump(from, to, near_read, far_write));
        let back = place::spawn(NOWHERE, self.clone().pump(to, from, far_read, near_write));
        let mut inner = self.lock();
        inner.streams.retain(|s| !s.pumps.iter().all(AbortHandle::is_finished));
        inner.streams.push(Stream { ends: (from, to), pumps: [there.abort_handle(), back.abort_handle()] });
        Ok(near)
    }

    /// Carries one direction of a stream, in order, until one end closes.
    async fn pump(self, from: Place, to: Place, mut read: impl AsyncRead + Unpin, mut write: impl AsyncWrite + Unpin) {
        let mut chunk = vec![0; WINDOW];
        loop {
            let Ok(len) = read.read(&mut chunk).await else { return };
            let quality = self.lock().quality;
            tokio::time::sleep(self.delay(quality)).await;
            let mut mended = self.mended.subscribe();
            while from != to && !self.is_open(from, to) {
                drop(mended.changed().await);
            }
            if len == 0 || write.write_all(&chunk[..len]).await.is_err() {
                drop(write.shutdown().await);
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the network")
    }
}

impl Stream {
    fn joins(&self, place: Place) -> bool {
        self.ends.0 == place || self.ends.1 == place
    }

    /// Breaks it: both ends see that it is over.
    fn stop(&self) -> bool {
        self.pumps.iter().for_each(AbortHandle::abort);
        true
    }

    /// Nothing comes any more, and nothing says so.
    fn hang(&self) -> bool {
        // The pumps wait for a link that is not mended before the machine is back; then they are stopped.
        false
    }
}

impl Connected for Incoming {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Incoming {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Incoming {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
