//! Log lines for clients: managers say which are wanted, this node sends them (swarm-semantics 12).

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use futures::{Stream, StreamExt, stream};
use shoal_types::{Task, TaskId};
use shoal_wire::logs::{LINES, LogOptions, LogSelector, Subscription, batches};
use shoal_wire::proto::log_broker_client::LogBrokerClient;
use shoal_wire::{MAX_MESSAGE, proto};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::allowance::Allowance;
use crate::worker::Worker;

/// Why lines of some tasks are missing.
type Errors = Arc<Mutex<Vec<String>>>;

/// Serves subscriptions over `channel` until the manager ends the stream.
pub async fn run(channel: Channel, worker: &Arc<Worker>) -> tonic::Status {
    match serve(channel, worker).await {
        Ok(()) => tonic::Status::unavailable("the manager closed the log subscriptions"),
        Err(status) => status,
    }
}

async fn serve(channel: Channel, worker: &Arc<Worker>) -> Result<(), tonic::Status> {
    let mut client =
        LogBrokerClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
    let mut messages = client.listen_subscriptions(proto::ListenSubscriptionsRequest {}).await?.into_inner();
    let mut publishers = JoinSet::new();
    let mut open = BTreeMap::new();
    while let Some(message) = messages.message().await? {
        match Subscription::try_from(message)? {
            Subscription::Open { id, selector, options } => {
                let publisher = publish(client.clone(), worker.clone(), id.clone(), selector, options);
                open.insert(id, publishers.spawn(publisher));
            }
            Subscription::Close { id } => {
                if let Some(publisher) = open.remove(&id) {
                    publisher.abort();
                }
            }
        }
        while publishers.try_join_next().is_some() {}
    }
    Ok(())
}

/// Sends the lines of one subscription, then says that there are no more.
async fn publish(
    mut client: LogBrokerClient<Channel>,
    worker: Arc<Worker>,
    subscription_id: String,
    selector: LogSelector,
    options: LogOptions,
) {
    let id = subscription_id.clone();
    let errors = Errors::default();
    let messages = lines(worker, selector, options, errors.clone())
        .ready_chunks(LINES)
        .flat_map(|lines| stream::iter(batches(lines)))
        .map(move |lines| proto::PublishLogsMessage { subscription_id: id.clone(), lines, ..Default::default() })
        .chain(stream::once(async move {
            let error = errors.lock().expect("nothing panics while it is held").join(", ");
            proto::PublishLogsMessage { subscription_id, close: true, error, ..Default::default() }
        }));
    if let Err(status) = client.publish_logs(messages).await {
        tracing::debug!("a log subscription ended: {}", status.message());
    }
}

/// The lines of all tasks that `selector` means; when following, also of those that come later.
fn lines(
    worker: Arc<Worker>,
    selector: LogSelector,
    options: LogOptions,
    errors: Errors,
) -> impl Stream<Item = proto::LogLine> {
    let (sender, receiver) = mpsc::channel(LINES);
    tokio::spawn(async move {
        let mut readers = JoinSet::new();
        let mut seen = HashSet::new();
        let mut changes = worker.changes();
        loop {
            changes.mark_unchanged();
            for task in worker.tasks().into_iter().filter(|t| means(&selector, t)) {
                if seen.insert(task.id) {
                    readers.spawn(read(worker.clone(), task, options.clone(), sender.clone(), errors.clone()));
                }
            }
            if !options.follow {
                break;
            }
            tokio::select! {
                () = sender.closed() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
        readers.join_all().await;
    });
    ReceiverStream::new(receiver)
}

fn means(selector: &LogSelector, task: &Task) -> bool {
    selector.tasks.contains(&task.id) || selector.services.contains(&task.service_id)
}

async fn read(
    worker: Arc<Worker>,
    task: Arc<Task>,
    options: LogOptions,
    sender: mpsc::Sender<proto::LogLine>,
    errors: Errors,
) {
    let id: TaskId = task.id;
    if options.follow {
        worker.started(id).await;
    }
    match worker.executor().logs(task, options).await {
        Ok(mut lines) => {
            let mut allowance = Allowance::new(Instant::now());
            while let Some(line) = lines.next().await {
                let wait = allowance.take(line.data.len(), Instant::now());
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                if sender.send(line.into()).await.is_err() {
                    return;
                }
            }
        }
        Err(error) => errors.lock().expect("nothing panics while it is held").push(format!("task {id}: {error}")),
    }
}
