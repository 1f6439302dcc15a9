//! What happened, for `docker events`: the newest few hundred kept, and every new one sent to whoever listens.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bollard_stubs::models::{EventActor, EventMessage, EventMessageScopeEnum, EventMessageTypeEnum};
use futures::Stream;
use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::error::{Error, Result};
use crate::options::{EventsOptions, Filters};

/// How many past events are kept (as in Docker).
const KEPT: usize = 256;
/// How far a listener may fall behind before it loses events.
const BUFFER: usize = 4096;

const FILTER_NAMES: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// The events of this node and, where it hands them in, of its cluster.
#[derive(Debug)]
pub(crate) struct Events {
    past: Mutex<VecDeque<Arc<EventMessage>>>,
    // shared: every task of this node listens, and few events concern it
    sender: broadcast::Sender<Arc<EventMessage>>,
}

impl Events {
    pub fn new() -> Self {
        Self { past: Mutex::new(VecDeque::with_capacity(KEPT)), sender: broadcast::channel(BUFFER).0 }
    }

    /// Records and sends an event that happens now.
    pub fn emit(
        &self,
        typ: EventMessageTypeEnum,
        action: impl Into<String>,
        id: impl Into<String>,
        attributes: HashMap<String, String>,
    ) {
        self.publish(EventMessage {
            typ: Some(typ),
            action: Some(action.into()),
            actor: Some(EventActor { id: Some(id.into()), attributes: Some(attributes) }),
            scope: Some(EventMessageScopeEnum::LOCAL),
            time: None,
            time_nano: None,
        });
    }

    /// Records and sends an event; sets its time if it has none.
    pub fn publish(&self, mut event: EventMessage) {
        let mut past = self.past.lock().expect("no holder panics");
        if event.time_nano.is_none() {
            let now = Timestamp::now();
            event.time = Some(now.as_second());
            event.time_nano = Some(i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX));
        }
        if past.len() == KEPT {
            past.pop_front();
        }
        let event = Arc::new(event);
        past.push_back(event.clone());
        // nobody listening is no error
        self.sender.send(event).ok();
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.sender.receiver_count()
    }

    /// What happened since `since` and what happens until `until`, in order, none twice and none left out (a listener
    /// that falls thousands behind excepted).
    pub fn subscribe(&self, options: EventsOptions) -> Result<impl Stream<Item = EventMessage> + Send + use<>> {
        check_filters(&options.filters)?;
        let (past, receiver) = {
            let past = self.past.lock().expect("no holder panics");
            // subscribed under the lock: the next event is the first one that `past` does not have
            (past.iter().cloned().collect::<Vec<_>>(), self.sender.subscribe())
        };
        let EventsOptions { since, until, filters } = options;
        let wanted_past = since.is_some() || until.is_some();
        let past: VecDeque<_> = past
            .into_iter()
            .filter(|event| wanted_past && in_window(event, since, until) && matches(event, &filters))
            .collect();
        Ok(futures::stream::unfold((past, receiver, filters), move |(mut past, mut receiver, filters)| async move {
            if let Some(event) = past.pop_front() {
                return Some((Arc::unwrap_or_clone(event), (past, receiver, filters)));
            }
            loop {
                let event = next_before(&mut receiver, until).await?;
                if in_window(&event, None, until) && matches(&event, &filters) {
                    return Some((Arc::unwrap_or_clone(event), (past, receiver, filters)));
                }
            }
        }))
    }
}

impl crate::Engine {
    /// What happened and what happens. A listener that has been made misses nothing of what happens after.
    pub fn events(&self, options: EventsOptions) -> Result<impl Stream<Item = EventMessage> + Send + use<>> {
        self.events.subscribe(options)
    }

    /// Hands in an event of another part of the node (the cluster's): listeners and the past see it as it is.
    pub fn publish_event(&self, event: EventMessage) {
        self.events.publish(event);
    }
}

/// The next event; `None` once `until` has come or the engine has gone.
async fn next_before(
    receiver: &mut broadcast::Receiver<Arc<EventMessage>>,
    until: Option<Timestamp>,
) -> Option<Arc<EventMessage>> {
    loop {
        let received = match until {
            None => receiver.recv().await,
            Some(until) => {
                let left = until.duration_since(Timestamp::now());
                let left = std::time::Duration::try_from(left).unwrap_or_default();
                tokio::time::timeout(left, receiver.recv()).await.ok()?
            }
        };
        match received {
            Ok(event) => return Some(event),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}

fn in_window(event: &EventMessage, since: Option<Timestamp>, until: Option<Timestamp>) -> bool {
    let nanos = i128::from(event.time_nano.unwrap_or_default());
    since.is_none_or(|since| nanos >= since.as_nanosecond()) && until.is_none_or(|until| nanos <= until.as_nanosecond())
}

fn check_filters(filters: &Filters) -> Result<()> {
    match filters.keys().find(|name| !FILTER_NAMES.contains(&name.as_str())) {
        Some(name) => Err(Error::invalid(format!("invalid filter '{name}'"))),
        None => Ok(()),
    }
}

/// Whether an event passes. Values of one filter are alternatives, filters must all pass, labels must all be there.
pub(crate) fn matches(event: &EventMessage, filters: &Filters) -> bool {
    let typ = event.typ.map(|t| t.to_string()).unwrap_or_default();
    let action = event.action.as_deref().unwrap_or_default();
    let empty = HashMap::new();
    let attributes = event.actor.as_ref().and_then(|a| a.attributes.as_ref()).unwrap_or(&empty);
    filters.iter().all(|(name, values)| match name.as_str() {
        "event" => values.iter().any(|v| v == action || action.split_once(':').is_some_and(|(head, _)| v == head)),
        "type" => values.contains(&typ),
        "scope" => {
            let scope = event.scope.map(|s| s.to_string()).unwrap_or_else(|| "local".to_owned());
            values.contains(&scope)
        }
        "label" => values.iter().all(|wanted| has_label(attributes, wanted)),
        "image" => values.iter().any(|v| is_image(event, &typ, attributes, v)),
        kind => kind == typ && values.iter().any(|v| is_actor(event, attributes, v)),
    })
}

fn has_label(attributes: &HashMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => attributes.get(key).is_some_and(|v| v == value),
        None => attributes.contains_key(wanted),
    }
}

/// By id, beginning of an id, or name.
fn is_actor(event: &EventMessage, attributes: &HashMap<String, String>, wanted: &str) -> bool {
    let id = event.actor.as_ref().and_then(|a| a.id.as_deref()).unwrap_or_default();
    let bare = wanted.strip_prefix('/').unwrap_or(wanted);
    (!bare.is_empty() && id.starts_with(bare)) || attributes.get("name").is_some_and(|name| name == bare)
}

/// Of an image itself, or of a container made from it; with or without the tag.
fn is_image(event: &EventMessage, typ: &str, attributes: &HashMap<String, String>, wanted: &str) -> bool {
    let id = event.actor.as_ref().and_then(|a| a.id.as_deref()).unwrap_or_default();
    let name = match typ {
        "image" => attributes.get("name"),
        _ => attributes.get("image"),
    };
    let same = |have: &str| have == wanted || strip_tag(have) == wanted;
    (typ == "image" && same(id)) || name.is_some_and(|name| same(name))
}

fn strip_tag(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    match name.rsplit_once(':') {
        Some((bare, tag)) if !tag.contains('/') => bare,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    fn event(action: &str, id: &str, attributes: &[(&str, &str)]) -> EventMessage {
        EventMessage {
            typ: Some(EventMessageTypeEnum::CONTAINER),
            action: Some(action.into()),
            actor: Some(EventActor {
                id: Some(id.into()),
                attributes: Some(attributes.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()),
            }),
            scope: Some(EventMessageScopeEnum::LOCAL),
            ..EventMessage::default()
        }
    }

    fn filters(pairs: &[(&str, &str)]) -> Filters {
        let mut filters = Filters::new();
        for (name, value) in pairs {
            filters.entry((*name).to_owned()).or_default().push((*value).to_owned());
        }
        filters
    }

    #[test]
    fn filters_select_by_actor_image_label_and_action() {
        let e = event("health_status: healthy", "abcdef", &[("name", "web"), ("image", "nginx:1"), ("tier", "front")]);
        for pass in [
            &[("container", "web")][..],
            &[("container", "abc")],
            &[("image", "nginx")],
            &[("image", "nginx:1"), ("label", "tier=front"), ("label", "tier")],
            &[("event", "health_status")],
            &[("event", "start"), ("event", "health_status: healthy")],
            &[("type", "container"), ("scope", "local")],
        ] {
            assert!(matches(&e, &filters(pass)), "{pass:?}");
        }
        for stop in [
            &[("container", "we")][..],
            &[("image", "ngin")],
            &[("label", "tier"), ("label", "x")],
            &[("event", "health")],
            &[("type", "image")],
            &[("network", "web")],
        ] {
            assert!(!matches(&e, &filters(stop)), "{stop:?}");
        }
    }

    #[tokio::test]
    async fn a_listener_sees_the_past_once_and_then_the_future() {
        let events = Events::new();
        events.publish(event("create", "1", &[]));
        let since = Some(Timestamp::UNIX_EPOCH);
        let mut stream =
            Box::pin(events.subscribe(EventsOptions { since, ..EventsOptions::default() }).expect("no filters"));
        events.publish(event("start", "1", &[]));
        assert_eq!(stream.next().await.unwrap().action.as_deref(), Some("create"));
        assert_eq!(stream.next().await.unwrap().action.as_deref(), Some("start"));
        let mut live = Box::pin(events.subscribe(EventsOptions::default()).expect("no filters"));
        events.publish(event("die", "1", &[]));
        assert_eq!(live.next().await.unwrap().action.as_deref(), Some("die"), "without since, no past");
    }

    #[tokio::test]
    async fn an_end_in_the_past_gives_the_past_and_ends() {
        let events = Events::new();
        events.publish(event("create", "1", &[]));
        let until = Some(Timestamp::now());
        let stream = events.subscribe(EventsOptions { until, ..EventsOptions::default() }).expect("no filters");
        assert_eq!(stream.collect::<Vec<_>>().await.len(), 1);
        let bad = EventsOptions { filters: filters(&[("nope", "x")]), ..EventsOptions::default() };
        assert!(events.subscribe(bad).is_err());
    }
}
