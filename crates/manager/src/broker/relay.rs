//! From the leader's broker to a client of any manager: the same lines here and there, also when the leader changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_raft::Raft;
use shoal_types::{Refusal, TaskId, Timestamp};
use shoal_wire::logs::{LogLine, LogOptions, LogSelector};
use shoal_wire::proto::LogBatch;
use shoal_wire::proto::log_broker_client::LogBrokerClient;
use shoal_wire::{Dial, MAX_MESSAGE};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;

use super::{BUFFER, End, LogEnd, Reason, Subscribed};
use crate::control::{LEADERLESS, no_leader};
use crate::lead::{self, Lead};
use crate::leader::Active;

/// How long the leader may take to open a subscription.
const OPEN: Duration = Duration::from_secs(2);
/// The pause before another attempt.
const RETRY: Duration = Duration::from_millis(100);
/// How often in a row a subscription is opened anew without a line.
const ATTEMPTS: u32 = 5;

/// The lines that a client wants. Dropping it tells the agents to stop.
#[derive(Debug)]
pub struct LogStream(mpsc::Receiver<Result<LogLine, LogEnd>>);

/// Where subscriptions are opened.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub raft: Raft,
    pub active: Active,
    pub dial: Arc<dyn Dial>,
}

/// A subscription with the leader of the moment.
struct Opened {
    lead: Lead,
    lines: Lines,
}

enum Lines {
    Here(Subscribed),
    There(Box<Streaming<LogBatch>>),
}

/// What comes of a subscription.
enum Step {
    Lines(Vec<LogLine>),
    End(End),
    /// The leader is gone.
    Lost,
}

/// How far each task has been read.
#[derive(Debug, Default)]
struct Seen {
    last: HashMap<TaskId, Timestamp>,
    /// As it was when the leader was lost: what comes again up to there is known.
    known: HashMap<TaskId, Timestamp>,
}

impl LogStream {
    /// The next line. An error is the last thing: some lines could not be had. `None`: that is all.
    pub async fn next(&mut self) -> Option<Result<LogLine, LogEnd>> {
        self.0.recv().await
    }
}

impl Source {
    /// Opens a subscription for a client. It goes on with the next leader when there is another one.
    ///
    /// # Errors
    /// No leader.
    pub async fn stream(self, selector: LogSelector, options: LogOptions) -> Result<LogStream, Refusal> {
        let opened = self.open(&selector, &options).await?;
        let (tx, rx) = mpsc::channel(BUFFER);
        tokio::spawn(async move {
            let closed = tx.clone();
            tokio::select! {
                () = self.relay(opened, selector, options, tx) => {}
                () = closed.closed() => {}
            }
        });
        Ok(LogStream(rx))
    }

    async fn open(&self, selector: &LogSelector, options: &LogOptions) -> Result<Opened, Refusal> {
        let until = Instant::now() + LEADERLESS;
        loop {
            let lead = lead::known(&self.raft, until).await.ok_or_else(no_leader)?;
            if let Some(lines) = timeout(OPEN, self.open_at(&lead, selector, options)).await.ok().flatten() {
                return Ok(Opened { lead, lines });
            }
            if Instant::now() >= until {
                return Err(no_leader());
            }
            sleep(RETRY).await;
        }
    }

    async fn open_at(&self, lead: &Lead, selector: &LogSelector, options: &LogOptions) -> Option<Lines> {
        if lead.number == self.raft.number() {
            let term = self.active.now()?;
            let subscribed = term.broker.subscribe(&self.raft.snapshot(), selector.clone(), options.clone());
            return Some(Lines::Here(subscribed));
        }
        let channel = self.dial.dial(&lead.addr).await.ok()?;
        let mut client = LogBrokerClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        match client.subscribe_logs(selector.request(options)).await {
            Ok(response) => Some(Lines::There(Box::new(response.into_inner()))),
            Err(status) => {
                tracing::debug!(%status, addr = lead.addr, "the leader does not bring log lines");
                None
            }
        }
    }

    async fn relay(
        &self,
        mut opened: Opened,
        selector: LogSelector,
        options: LogOptions,
        tx: mpsc::Sender<Result<LogLine, LogEnd>>,
    ) {
        let (mut seen, mut attempts) = (Seen::default(), 0);
        let end = loop {
            match opened.next(&self.raft).await {
                Step::Lines(lines) => {
                    attempts = 0;
                    for line in lines.into_iter().filter(|line| seen.is_news(line)).collect::<Vec<_>>() {
                        if tx.send(Ok(line)).await.is_err() {
                            return;
                        }
                    }
                }
                Step::End(End::Complete) => return,
                Step::End(End::Incomplete(end)) => break end,
                Step::Lost if attempts < ATTEMPTS => {
                    attempts += 1;
                    sleep(RETRY).await;
                    match self.open(&selector, &seen.resume(&options)).await {
                        Ok(again) => opened = again,
                        Err(_) => break LogEnd::new(&[Reason::NoLeader]),
                    }
                }
                Step::Lost => break LogEnd::new(&[Reason::NoLeader]),
            }
        };
        // The client may have gone.
        drop(tx.send(Err(end)).await);
    }
}

impl Opened {
    async fn next(&mut self, raft: &Raft) -> Step {
        let next = async {
            match &mut self.lines {
                Lines::Here(subscribed) => match subscribed.lines.recv().await {
                    Some(Ok(line)) => Step::Lines(vec![line]),
                    Some(Err(end)) => Step::End(end),
                    None => Step::Lost,
                },
                Lines::There(batches) => match batches.message().await {
                    Ok(Some(batch)) if !batch.incomplete.is_empty() => {
                        Step::End(End::Incomplete(LogEnd(batch.incomplete)))
                    }
                    Ok(Some(batch)) => match batch.lines.into_iter().map(LogLine::try_from).collect() {
                        Ok(lines) => Step::Lines(lines),
                        Err(_) => Step::Lost,
                    },
                    Ok(None) => Step::End(End::Complete),
                    Err(_) => Step::Lost,
                },
            }
        };
        tokio::select! {
            biased;
            step = next => step,
            () = lead::over(raft, self.lead.number) => Step::Lost,
        }
    }
}

impl Seen {
    /// Notes the line; whether the client does not have it yet.
    fn is_news(&mut self, line: &LogLine) -> bool {
        let news = self.known.get(&line.task).is_none_or(|known| line.time > *known);
        if news {
            self.last.insert(line.task, line.time);
        }
        news
    }

    /// What to ask the next leader for.
    fn resume(&mut self, options: &LogOptions) -> LogOptions {
        self.known.clone_from(&self.last);
        match self.last.values().min() {
            Some(since) if options.follow => LogOptions { tail: None, since: Some(*since), ..options.clone() },
            _ => options.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RandomIds;

    fn line(task: TaskId, second: i64) -> LogLine {
        LogLine {
            service: shoal_types::ServiceId::new(&mut RandomIds),
            task,
            time: Timestamp::from_second(second).unwrap(),
            stderr: false,
            data: b"x\n".to_vec(),
            attrs: Default::default(),
        }
    }

    #[test]
    fn what_a_client_has_does_not_come_again_after_a_change_of_leaders() {
        let (one, two) = (TaskId::new(&mut RandomIds), TaskId::new(&mut RandomIds));
        let mut seen = Seen::default();
        assert!(seen.is_news(&line(one, 1)) && seen.is_news(&line(one, 1)), "equal times are no sign of the same line");
        assert!(seen.is_news(&line(one, 5)));
        assert!(seen.is_news(&line(two, 3)));
        let options = LogOptions { stdout: true, follow: true, tail: Some(7), ..LogOptions::default() };
        let again = seen.resume(&options);
        assert_eq!((again.tail, again.since), (None, Some(Timestamp::from_second(3).unwrap())));
        assert!(!seen.is_news(&line(one, 4)) && !seen.is_news(&line(one, 5)) && !seen.is_news(&line(two, 3)));
        assert!(seen.is_news(&line(one, 6)) && seen.is_news(&line(two, 4)));
    }

    #[test]
    fn a_client_that_has_nothing_yet_gets_what_it_asked_for() {
        let options = LogOptions { stdout: true, follow: true, tail: Some(0), ..LogOptions::default() };
        assert_eq!(Seen::default().resume(&options), options);
    }
}
