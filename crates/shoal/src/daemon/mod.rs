//! `shoal daemon`: settings, roots, the parts in their order, connections, and the way out.

mod flags;
mod listen;
mod memory;
mod pidfile;
mod wiring;

use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

pub use flags::Flags;
use flags::{Settings, SettingsError};
use listen::{ListenError, Listener};
use pidfile::{Pidfile, PidfileError};
use wiring::{Parts, WiringError};

/// How long idle threads for blocking work stay: memory is for containers.
const IDLE_THREAD: Duration = Duration::from_secs(2);

/// Why the daemon does not run. One sentence each.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Pidfile(#[from] PidfileError),
    #[error(transparent)]
    Wiring(#[from] WiringError),
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
}

/// Runs the daemon until it is told to stop. Containers go on without it.
///
/// # Errors
/// Anything that keeps it from serving.
pub fn run(flags: Flags) -> Result<(), DaemonError> {
    let settings = flags.settle()?;
    log_to_stderr(settings.log_level);
    shoal_runtime::limit_free_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("shoal")
        .thread_keep_alive(IDLE_THREAD)
        .build()?;
    runtime.block_on(serve(settings))
}

/// One line an event, for the journal or a terminal; libraries speak from warnings up. But not the consensus algorithm: it
/// complains ten times a second of a manager that is off; `shoal_raft` says what matters.
fn log_to_stderr(level: tracing::Level) {
    let filter = EnvFilter::try_from_env("SHOAL_LOG").unwrap_or_else(|_| {
        let ours = SHOAL_CRATES.map(|c| format!("shoal_{c}={level}")).join(",");
        EnvFilter::new(format!("warn,openraft=off,shoal={level},{ours}"))
    });
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

const SHOAL_CRATES: [&str; 9] = ["runtime", "image", "network", "engine", "raft", "manager", "agent", "node", "api"];

async fn serve(settings: Settings) -> Result<(), DaemonError> {
    let _pidfile = Pidfile::claim(&settings.pidfile)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let parts = Parts::open(&settings).await?;
    let listeners = match listen::bind(&settings.hosts, settings.tls.as_ref()).await {
        Ok(listeners) => listeners,
        Err(error) => {
            parts.close().await;
            return Err(error.into());
        }
    };
    let router = parts.router();
    let sockets: Vec<PathBuf> = listeners.iter().filter_map(Listener::path).collect();
    let accepting: Vec<_> = listeners.into_iter().map(|l| tokio::spawn(accept(l, router.clone()))).collect();
    let tidying = tokio::spawn(memory::run());
    notify(sd_notify::NotifyState::Ready);
    tracing::info!("serving");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping; containers go on");
    notify(sd_notify::NotifyState::Stopping);
    tidying.abort();
    accepting.iter().for_each(tokio::task::JoinHandle::abort);
    parts.close().await;
    for socket in sockets {
        if let Err(error) = std::fs::remove_file(&socket) {
            tracing::debug!("cannot remove {}: {error}", socket.display());
        }
    }
    Ok(())
}

/// Where there is no systemd this does nothing.
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!("systemd was not told: {error}");
    }
}

async fn accept(listener: Listener, router: Router) {
    loop {
        let accepted = match &listener {
            Listener::Unix(socket, _) => socket.accept().await.map(|(io, _)| {
                tokio::spawn(shoal_api::serve::connection(io, router.clone()));
            }),
            Listener::Tcp(socket, None) => socket.accept().await.map(|(io, _)| {
                tokio::spawn(shoal_api::serve::connection(io, router.clone()));
            }),
            Listener::Tcp(socket, Some(tls)) => socket.accept().await.map(|(io, _)| {
                tokio::spawn(shoal_api::serve::tls_connection(io, tls.clone(), router.clone()));
            }),
        };
        if let Err(error) = accepted {
            // Out of file descriptors, most likely: others will be closed soon.
            tracing::warn!("cannot accept a connection: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
