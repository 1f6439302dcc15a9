//! A netlink socket: many requests in one system call, and their answers.
//!
//! A socket belongs for ever to the network namespace in which it was made, whoever uses it afterwards.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols};

use crate::{
    error::KernelError,
    kernel::attributes::{align, attributes, text},
};

const HEADER: usize = 16;
const FLAG_REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const FLAG_ACK: u16 = libc::NLM_F_ACK as u16;
const FLAG_DUMP: u16 = libc::NLM_F_DUMP as u16;
const ACK_HAS_ATTRIBUTES: u16 = 0x200;
/// Attribute of an acknowledgement: the kernel's sentence on what was wrong.
const ACK_TEXT: u16 = 1;

/// Which part of the kernel a socket speaks to.
#[derive(Clone, Copy, Debug)]
pub enum Family {
    /// Interfaces, addresses and routes.
    Route,
    /// Firewall and connection tracking.
    Netfilter,
}

/// A netlink socket.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
}

/// One request.
#[derive(Debug)]
pub struct Request {
    /// What is being tried, for errors.
    pub step: String,
    /// Message type.
    pub kind: u16,
    /// `NLM_F_*` beyond "request" and "acknowledge", which are always set.
    pub flags: u16,
    /// Family header and attributes.
    pub payload: Vec<u8>,
    /// Whether the kernel answers at all (the brackets of a firewall transaction are not answered).
    pub answered: bool,
}

/// A message that came in answer to a request: its type and payload.
pub type Answer = (u16, Vec<u8>);

impl Request {
    /// A request that is acknowledged.
    pub fn new(step: impl Into<String>, kind: u16, flags: i32, payload: Vec<u8>) -> Self {
        Self { step: step.into(), kind, flags: flags as u16, payload, answered: true }
    }

    fn is_dump(&self) -> bool {
        self.flags & FLAG_DUMP == FLAG_DUMP
    }

    fn emit(&self, sequence: u32, into: &mut Vec<u8>) {
        let length = HEADER + self.payload.len();
        let ack = if self.answered && !self.is_dump() { FLAG_ACK } else { 0 };
        into.extend((length as u32).to_ne_bytes());
        into.extend(self.kind.to_ne_bytes());
        into.extend((self.flags | FLAG_REQUEST | ack).to_ne_bytes());
        into.extend(sequence.to_ne_bytes());
        into.extend(0u32.to_ne_bytes());
        into.extend(&self.payload);
        into.resize(into.len() + align(length) - length, 0);
    }
}

impl Netlink {
    /// A socket in the calling thread's network namespace.
    pub fn open(family: Family) -> io::Result<Self> {
        let protocol = match family {
            Family::Route => protocols::NETLINK_ROUTE,
            Family::Netfilter => protocols::NETLINK_NETFILTER,
        };
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // refused by kernels that lack them; both only make answers smaller or clearer
        socket.set_cap_ack(true).or_else(unsupported)?;
        socket.set_ext_ack(true).or_else(unsupported)?;
        Ok(Self { socket })
    }

    /// Sends the requests in one message and returns each one's answers. The kernel works through all of them; the first
    /// error among them is returned.
    pub fn exchange(&self, requests: &[Request]) -> Result<Vec<Vec<Answer>>, KernelError> {
        let Some(first) = requests.first() else { return Ok(Vec::new()) };
        let refused = |source| KernelError::Refused { step: first.step.clone(), source };
        let mut buffer = Vec::new();
        for (sequence, request) in (1u32..).zip(requests) {
            request.emit(sequence, &mut buffer);
        }
        self.socket.send(&buffer, 0).map_err(refused)?;
        let mut collected = Collected::new(requests);
        let mut buffer = Vec::with_capacity(64 << 10);
        while collected.waiting > 0 {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => collected.take(&buffer)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(refused(source)),
            }
        }
        collected.finish()
    }
}

fn unsupported(error: io::Error) -> io::Result<()> {
    if error.raw_os_error() == Some(libc::ENOPROTOOPT) { Ok(()) } else { Err(error) }
}

/// Answers on their way in.
struct Collected<'a> {
    requests: &'a [Request],
    answers: Vec<Vec<Answer>>,
    done: Vec<bool>,
    waiting: usize,
    error: Option<KernelError>,
}

impl<'a> Collected<'a> {
    fn new(requests: &'a [Request]) -> Self {
        let waiting = requests.iter().filter(|request| request.answered).count();
        Self {
            requests,
            answers: requests.iter().map(|_| Vec::new()).collect(),
            done: vec![false; requests.len()],
            waiting,
            error: None,
        }
    }

    fn take(&mut self, mut buffer: &[u8]) -> Result<(), KernelError> {
        while buffer.len() >= HEADER {
            let word = |at: usize| u32::from_ne_bytes([buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]]);
            let half = |at: usize| u16::from_ne_bytes([buffer[at], buffer[at + 1]]);
            let (length, kind, flags, sequence) = (word(0) as usize, half(4), half(6), word(8));
            if length < HEADER || length > buffer.len() {
                let step = self.requests[0].step.clone();
                return Err(KernelError::Garbled { step, detail: format!("message of {length} bytes") });
            }
            let payload = &buffer[HEADER..length];
            // other sequence numbers are notifications that nobody here asked for
            if let Some(at) = (sequence as usize).checked_sub(1).filter(|at| *at < self.requests.len()) {
                self.take_one(at, kind, flags, payload);
            }
            buffer = &buffer[align(length).min(buffer.len())..];
        }
        Ok(())
    }

    fn take_one(&mut self, at: usize, kind: u16, flags: u16, payload: &[u8]) {
        match i32::from(kind) {
            libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                if code < 0 && self.error.is_none() {
                    let step = &self.requests[at].step;
                    let step = match sentence(flags, payload).filter(|text| !text.is_empty()) {
                        Some(text) => format!("{step} ({text})"),
                        None => step.clone(),
                    };
                    self.error = Some(KernelError::Refused { step, source: io::Error::from_raw_os_error(-code) });
                }
                if !self.done[at] {
                    self.done[at] = true;
                    // an error on a bracket fails the transaction as a whole
                    self.waiting = if self.requests[at].answered { self.waiting - 1 } else { 0 };
                }
            }
            _ => self.answers[at].push((kind, payload.to_vec())),
        }
    }

    fn finish(self) -> Result<Vec<Vec<Answer>>, KernelError> {
        self.error.map_or(Ok(self.answers), Err)
    }
}

/// The kernel's own words: after the code and the header of what is acknowledged.
fn sentence(flags: u16, payload: &[u8]) -> Option<String> {
    let rest = payload.get(4 + HEADER..).filter(|_| flags & ACK_HAS_ATTRIBUTES != 0)?;
    attributes(rest).find(|(kind, _)| *kind == ACK_TEXT).map(|(_, value)| text(value))
}
