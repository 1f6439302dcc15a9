//! Our firewall table as it is in the kernel, and its way to what it should be.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use shoal_rules::{Guarded, Protocol, Publication, Table, TableChange, nft::script, plan_table};

use crate::{
    error::KernelError,
    kernel::{
        conntrack, elements, nft,
        socket::{Family, Netlink},
    },
};

/// The firewall of this machine, as far as it is ours.
#[derive(Debug, Default)]
pub(crate) struct Firewall {
    /// Interfaces between which nothing was forwarded before us.
    pub guarded: Guarded,
    loaded: Mutex<Loaded>,
}

#[derive(Debug, Default)]
struct Loaded {
    /// What was loaded last; `None` when that is not known.
    table: Option<Table>,
    /// Kept open: closing one waits until the kernel has freed all that was removed.
    socket: Option<Netlink>,
}

impl Firewall {
    /// With nothing loaded yet.
    pub fn new(guarded: Guarded) -> Self {
        Self { guarded, loaded: Mutex::default() }
    }

    /// Makes the kernel's table what `wanted` says once it is our turn. So of many that wait, the first does the work of
    /// all. Entries of maps go straight to the kernel; anything else, or a table that is not there any more (another
    /// program's "flush ruleset"), is loaded whole by `nft`.
    pub fn apply(&self, nft: &Path, wanted: impl FnOnce() -> Table) -> Result<(), KernelError> {
        let mut loaded = self.lock();
        let wanted = wanted();
        let changes = plan_table(loaded.table.as_ref(), Some(&wanted));
        if changes.is_empty() {
            return Ok(());
        }
        // unknown from here until it has worked
        loaded.table = None;
        let name = &wanted.name;
        if changes.iter().any(|change| matches!(change, TableChange::Replace(_) | TableChange::Delete(_))) {
            nft::run(nft, &script(name, &changes))?;
        } else if let Err(error) = loaded.with_socket(|socket| elements::apply(socket, name, &changes)) {
            tracing::info!(%error, "the firewall table is not as we left it and is loaded again");
            nft::run(nft, &script(name, &[TableChange::Replace(wanted.clone())]))?;
        }
        loaded.table = Some(wanted);
        Ok(())
    }

    /// Loads the table again if another program removed it. Says whether it did.
    pub fn ensure(&self, nft: &Path, wanted: impl FnOnce() -> Table) -> Result<bool, KernelError> {
        let mut loaded = self.lock();
        let Some(name) = loaded.table.as_ref().map(|table| table.name.clone()) else { return Ok(false) };
        let mut there = true;
        loaded.with_socket(|socket| {
            there = elements::has_table(socket, &name)?;
            Ok(())
        })?;
        if there {
            return Ok(false);
        }
        loaded.table = None;
        let wanted = wanted();
        nft::run(nft, &script(&name, &[TableChange::Replace(wanted.clone())]))?;
        loaded.table = Some(wanted);
        Ok(true)
    }

    /// Forgets tracked connections to these published ports that their coming, or going where `gone`, makes wrong. Those
    /// of TCP end by themselves.
    pub fn forget_connections(&self, publications: &[Publication], gone: bool) -> Result<(), KernelError> {
        let datagrams = publications.iter().filter(|publication| publication.protocol != Protocol::Tcp);
        let datagrams: Vec<_> = datagrams.filter(|publication| publication.is_translatable()).copied().collect();
        if datagrams.is_empty() {
            return Ok(());
        }
        self.lock().with_socket(|socket| conntrack::forget(socket, &datagrams, gone))
    }

    fn lock(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loaded {
    /// After an error the socket is not used again: late answers may still come on it.
    fn with_socket(&mut self, work: impl FnOnce(&Netlink) -> Result<(), KernelError>) -> Result<(), KernelError> {
        let step = || "open a firewall socket".to_owned();
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => Netlink::open(Family::Netfilter).map_err(|source| KernelError::Refused { step: step(), source })?,
        };
        work(&socket)?;
        self.socket = Some(socket);
        Ok(())
    }
}
