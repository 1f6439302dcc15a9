//! Removal of interfaces that nothing passes through any more.
//!
//! The kernel takes tens of milliseconds to remove an interface, since it waits until no processor can still see it.
//! Nobody needs to wait for that: an interface that is down is out of its bridge's way, and its address and name are
//! free. What is left when the daemon dies is removed at the next start.

use std::{
    io,
    sync::mpsc::{self, Sender},
    thread,
};

use crate::{
    error::KernelError,
    node::{host_socket, remove_link},
};

/// Removes interfaces of the namespace in which it was started, one after the other, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reaper {
    queue: Sender<String>,
}

impl Reaper {
    /// Starts the thread that does it.
    pub fn new() -> io::Result<Self> {
        let (queue, names) = mpsc::channel::<String>();
        thread::Builder::new().name("shoal-reaper".to_owned()).spawn(move || {
            for name in names {
                if let Err(error) = host_socket().and_then(|socket| remove_link(&socket, &name)) {
                    tracing::warn!(%error, name, "an interface of a stopped container remains");
                }
            }
        })?;
        Ok(Self { queue })
    }

    /// Takes the interface down at once, so that nothing passes through it, and has it removed.
    pub fn remove(&self, name: &str) -> Result<(), KernelError> {
        host_socket().and_then(|socket| crate::kernel::links::take_down(&socket, name))?;
        if self.queue.send(name.to_owned()).is_err() {
            tracing::warn!(name, "the thread that removes interfaces has ended");
        }
        Ok(())
    }
}
