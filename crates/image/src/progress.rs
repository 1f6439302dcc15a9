//! Progress messages in the exact shapes that Docker clients draw.

use std::sync::Arc;

use serde::Serialize;

/// One message of a pull or load, serialised as one JSON object of the API's message stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProgressEvent {
    /// A line for plain output (`Loaded image: …`); ends with a line feed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// What is happening.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// How far it is; `{}` for a layer's state without numbers.
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub detail: Option<ProgressDetail>,
    /// The bar that clients draw as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Layer (12 hex digits) or tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Bytes done and to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ProgressDetail {
    /// Bytes so far.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// Bytes in all; 0 when unknown.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
}

/// Where progress goes. Called from many threads; must not block.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(ProgressEvent) + Send + Sync>);

impl Progress {
    /// Sends each event to `sink`.
    pub fn new(sink: impl Fn(ProgressEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Drops every event.
    pub fn none() -> Self {
        Self::new(|_| {})
    }

    /// Sends one event.
    pub fn send(&self, event: ProgressEvent) {
        (self.0)(event);
    }

    /// A line without a layer, such as `Digest: …`.
    pub fn line(&self, status: impl Into<String>) {
        self.send(ProgressEvent { status: Some(status.into()), ..ProgressEvent::empty() });
    }

    /// A line about a tag, such as `Pulling from …`.
    pub fn about(&self, id: impl Into<String>, status: impl Into<String>) {
        self.send(ProgressEvent { status: Some(status.into()), id: Some(id.into()), ..ProgressEvent::empty() });
    }

    /// A layer's new state.
    pub fn state(&self, id: &str, status: &str) {
        let detail = Some(ProgressDetail::default());
        self.send(ProgressEvent { status: Some(status.into()), id: Some(id.into()), detail, ..ProgressEvent::empty() });
    }

    /// A layer's bytes so far.
    pub fn bytes(&self, id: &str, status: &str, current: u64, total: u64) {
        self.send(ProgressEvent {
            status: Some(status.into()),
            id: Some(id.into()),
            detail: Some(ProgressDetail { current, total }),
            progress: Some(bar(current, total)).filter(|bar| !bar.is_empty()),
            ..ProgressEvent::empty()
        });
    }

    /// A line of plain output.
    pub fn output(&self, line: impl Into<String>) {
        self.send(ProgressEvent { stream: Some(line.into()), ..ProgressEvent::empty() });
    }
}

impl ProgressEvent {
    fn empty() -> Self {
        Self { stream: None, status: None, detail: None, progress: None, id: None }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The bar of 50 steps with its numbers, as Docker's `jsonmessage` writes it for a wide terminal.
fn bar(current: u64, total: u64) -> String {
    if total == 0 {
        return if current == 0 { String::new() } else { format!("{:>8}", human_size(current)) };
    }
    let steps = ((current as f64 / total as f64 * 100.0) as usize / 2).min(50);
    let numbers = if current > total {
        format!("{:>8}", human_size(current))
    } else {
        format!("{:>8}/{}", human_size(current), human_size(total))
    };
    format!("[{}>{}] {numbers}", "=".repeat(steps), " ".repeat(50 - steps))
}

/// Bytes with four significant digits and a decimal unit: `1.234MB`.
fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit < UNITS.len() - 1 {
        size /= 1000.0;
        unit += 1;
    }
    let decimals = if size >= 1000.0 { 0 } else { 4 - (size.max(1.0).log10() as usize + 1) };
    let mut text = format!("{size:.decimals$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text + UNITS[unit]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_four_significant_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.234kB"),
            (12_345_678, "12.35MB"),
            (305_000_000, "305MB"),
            (100_000, "100kB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn bars_look_as_docker_draws_them() {
        assert_eq!(bar(0, 0), "");
        assert_eq!(bar(500, 0), "    500B");
        assert_eq!(bar(500, 1000), format!("[{}>{}]     500B/1kB", "=".repeat(25), " ".repeat(25)));
        assert_eq!(bar(1000, 1000), format!("[{}>]      1kB/1kB", "=".repeat(50)));
        assert_eq!(bar(2000, 1000), format!("[{}>]      2kB", "=".repeat(50)));
    }

    #[test]
    fn events_have_dockers_field_names() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let progress =
            Progress::new(move |event| sender.send(serde_json::to_string(&event).expect("json")).expect("sent"));
        progress.about("latest", "Pulling from library/x");
        progress.state("0123456789ab", "Waiting");
        progress.bytes("0123456789ab", "Downloading", 1, 2);
        progress.output("Loaded image: x:latest\n");
        drop(progress);
        let lines: Vec<String> = receiver.iter().collect();
        assert_eq!(lines[0], r#"{"status":"Pulling from library/x","id":"latest"}"#);
        assert_eq!(lines[1], r#"{"status":"Waiting","progressDetail":{},"id":"0123456789ab"}"#);
        assert!(
            lines[2]
                .starts_with(r#"{"status":"Downloading","progressDetail":{"current":1,"total":2},"progress":"[===="#)
        );
        assert_eq!(lines[3], r#"{"stream":"Loaded image: x:latest\n"}"#);
    }
}
