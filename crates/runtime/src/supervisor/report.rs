//! What a launcher tells its supervisor: one message per packet on a socket that its children share.

use std::fmt::{Debug, Write as _};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::errno;
use crate::refusal::LaunchError;

/// No report is longer.
const MAX: usize = 64 << 10;

/// A step of a launch.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// Something that the container library logged as an error on its way to failing. Its errors do not carry their
    /// causes across processes; its log does.
    Detail(String),
    /// Why it will fail, exactly.
    Cause(LaunchError),
    /// It worked; the process id.
    Ready(i32),
    /// It failed, in the container library's words.
    Failed(String),
}

pub(super) fn channel() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

impl Report {
    /// Sends; a supervisor that is gone cannot be told, and nothing can be done about it.
    pub(super) fn send(&self, channel: RawFd) {
        let mut bytes = serde_json::to_vec(self).expect("reports have string keys only");
        if bytes.len() > MAX {
            let short = Self::Failed("the error message is too long to be told".to_owned());
            bytes = serde_json::to_vec(&short).expect("reports have string keys only");
        }
        send(channel, &bytes, MsgFlags::MSG_NOSIGNAL).ok();
    }

    /// The next report; `None`: none at the moment. The end of the channel is `EPIPE`.
    pub(super) fn receive(channel: &OwnedFd) -> nix::Result<Option<Self>> {
        let mut bytes = vec![0; MAX];
        match recv(channel.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Err(Errno::EPIPE),
            Ok(len) => serde_json::from_slice(&bytes[..len]).map(Some).map_err(|_| Errno::EPROTO),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

/// What the reports of a failed launch amount to.
#[derive(Debug, Default)]
pub(super) struct Findings {
    details: Vec<String>,
    cause: Option<LaunchError>,
}

impl Findings {
    pub(super) fn add_detail(&mut self, detail: String) {
        self.details.push(detail);
    }

    pub(super) fn set_cause(&mut self, cause: LaunchError) {
        self.cause = Some(cause);
    }

    /// The exact cause where there is one, else the library's error with the first detail, which is the innermost.
    pub(super) fn into_error(self, failed: &str) -> LaunchError {
        match (self.cause, self.details.into_iter().next()) {
            (Some(cause), _) => cause,
            (None, Some(detail)) => LaunchError::Setup(format!("{failed}: {detail}")),
            (None, None) => LaunchError::Setup(failed.to_owned()),
        }
    }
}

/// Turns the container library's error log into reports.
pub(super) struct Relay {
    pub(super) channel: RawFd,
    /// The working directory of the process to be.
    pub(super) cwd: PathBuf,
}

impl Subscriber for Relay {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR && metadata.is_event()
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        if let Some(errno) = text.chdir_error() {
            let error = format!("chdir to cwd ({:?}) set in config.json failed: {errno}", self.cwd);
            Report::Cause(LaunchError::WorkingDirectory(error)).send(self.channel);
        }
        Report::Detail(text.finish()).send(self.channel);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event as one line: the message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(mut self) -> String {
        self.message.push_str(&self.fields);
        self.message
    }

    /// What the kernel said of the working directory, if this is about that: the library logs it and forgets it.
    fn chdir_error(&self) -> Option<String> {
        let name = self.fields.strip_prefix(", e: ").filter(|_| self.message == "failed to chdir")?;
        let known = (1..134).map(Errno::from_raw).find(|errno| format!("{errno:?}") == name);
        Some(known.map_or_else(|| name.to_owned(), errno::text))
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // writing to a string cannot fail
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, ", {name}: {value:?}"),
        };
        debug_assert!(written.is_ok());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// `what: no such file or directory`.
pub(super) fn setup_error(what: &str, errno: Errno) -> LaunchError {
    LaunchError::Setup(format!("{what}: {}", errno::text(errno)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_cause_beats_the_librarys_words_and_the_first_detail_explains_them() {
        let mut findings = Findings::default();
        findings.add_detail("failed to mount /x: ENOENT".into());
        findings.add_detail("failed to prepare rootfs".into());
        let error = findings.into_error("failed to create container");
        assert_eq!(error.to_string(), "failed to create container: failed to mount /x: ENOENT");

        let mut findings = Findings::default();
        findings.add_detail("executor refused".into());
        findings.set_cause(LaunchError::CommandNotFound("exec: \"x\": not found".into()));
        assert_eq!(findings.into_error("failed").exit_code(), 127);
    }

    #[test]
    fn a_report_arrives_whole_and_the_end_is_seen() {
        let (ours, theirs) = channel().unwrap();
        assert!(Report::receive(&ours).unwrap().is_none());
        Report::Ready(7).send(theirs.as_raw_fd());
        assert!(matches!(Report::receive(&ours), Ok(Some(Report::Ready(7)))));
        drop(theirs);
        assert_eq!(Report::receive(&ours).unwrap_err(), Errno::EPIPE);
    }
}
