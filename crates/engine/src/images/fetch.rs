//! Pulling and loading, with progress as it comes.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use serde::Serialize;
use shoal_image::{Platform, Progress, ProgressEvent, PullOptions, Reference, RegistryAuth};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

use super::reference_error;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// Progress that waits for a slow client; more is dropped, since the next message says it again.
const AHEAD: usize = 1024;

/// A message of a pull or load, in the shape that clients draw.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum FetchMessage {
    /// How far it is.
    Progress(ProgressEvent),
    /// It failed; the last message.
    Failed {
        /// What clients print.
        error: String,
        /// The same in detail.
        #[serde(rename = "errorDetail")]
        detail: FetchError,
    },
}

/// Docker's `errorDetail`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FetchError {
    /// What went wrong.
    pub message: String,
}

impl FetchMessage {
    fn failed(error: &Error) -> Self {
        let message = error.to_string();
        Self::Failed { error: message.clone(), detail: FetchError { message } }
    }
}

impl Engine {
    /// Pulls an image. The error is one that came before there was any progress to report; later ones are the stream's last
    /// message. Dropping the stream stops the pull, leaving nothing behind.
    pub async fn pull(
        self: &Arc<Self>,
        image: &str,
        tag: Option<&str>,
        platform: Option<&str>,
        auth: Option<RegistryAuth>,
    ) -> Result<impl Stream<Item = FetchMessage> + Send + use<>> {
        let reference = parse_reference(image, tag)?;
        let platform = match platform.filter(|p| !p.is_empty()) {
            Some(text) => {
                let parsed = Platform::parse(text);
                Some(parsed.ok_or_else(|| Error::invalid(format!("{text:?} is an invalid platform")))?)
            }
            None => None,
        };
        let (out, mut messages) = mpsc::channel(AHEAD);
        let (failed, early) = tokio::sync::oneshot::channel();
        let engine = self.clone();
        tokio::spawn(async move {
            let options = PullOptions { auth, platform };
            let progress = sink(out.clone(), false);
            let pulled = tokio::select! {
                pulled = engine.apply_pull(&reference, &options, &progress) => pulled,
                () = out.closed() => return,
            };
            drop(progress);
            if let Err(error) = pulled {
                // the caller decides by whether it has seen progress which of the two it heeds
                out.send(FetchMessage::failed(&error)).await.ok();
                failed.send(error).ok();
            }
        });
        let first = messages.recv().await;
        if let Some(FetchMessage::Failed { .. }) = first {
            return Err(early.await.unwrap_or(Error::ShuttingDown));
        }
        Ok(futures::stream::iter(first).chain(ReceiverStream::new(messages)))
    }

    /// Pulls an image without telling how far it is. `auth` as in the header `X-Registry-Auth`.
    pub async fn pull_quietly(self: &Arc<Self>, image: &str, auth: Option<&str>) -> Result<()> {
        let reference = Reference::parse(image).map_err(reference_error)?.with_default_tag();
        let auth = match auth {
            Some(header) => RegistryAuth::from_header(header).map_err(Error::InvalidParameter)?,
            None => None,
        };
        let options = PullOptions { auth, platform: None };
        self.apply_pull(&reference, &options, &Progress::none()).await
    }

    async fn apply_pull(&self, reference: &Reference, options: &PullOptions, progress: &Progress) -> Result<()> {
        self.images.pull(reference, options, progress).await?;
        self.image_event("pull", &reference.familiar(), &reference.familiar_name());
        Ok(())
    }

    /// Loads the images of an archive. `quiet`: only what was loaded is said.
    pub fn load<S, E>(self: &Arc<Self>, archive: S, quiet: bool) -> impl Stream<Item = FetchMessage> + Send + use<S, E>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let (out, messages) = mpsc::channel(AHEAD);
        let engine = self.clone();
        let archive = StreamReader::new(Box::pin(archive.map_err(|error| io::Error::other(error))));
        tokio::spawn(async move {
            let progress = sink(out.clone(), quiet);
            let loaded = engine.images.load(archive, &progress).await;
            match loaded {
                Ok(loaded) => {
                    for image in loaded {
                        let id = image.id.to_string();
                        engine.image_event("load", &id, &id);
                    }
                }
                Err(error) => {
                    let error = Error::from(error);
                    // the client may have gone
                    out.send(FetchMessage::failed(&error)).await.ok();
                }
            }
        });
        ReceiverStream::new(messages)
    }
}

fn sink(out: mpsc::Sender<FetchMessage>, quiet: bool) -> Progress {
    Progress::new(move |event| {
        if !quiet || event.stream.is_some() {
            // a client that does not read misses some
            out.try_send(FetchMessage::Progress(event)).ok();
        }
    })
}

/// Name and tag as the API has them: `fromImage` may have the tag in it, `tag` may be a digest.
fn parse_reference(image: &str, tag: Option<&str>) -> Result<Reference> {
    let mut reference = Reference::parse(image).map_err(reference_error)?;
    match tag.filter(|tag| !tag.is_empty()) {
        Some(tag) if tag.contains(':') => {
            let digest = tag.parse().map_err(|e: shoal_image::digest::DigestError| Error::invalid(e.to_string()))?;
            reference = reference.with_digest(digest);
        }
        Some(tag) => reference = reference.with_tag(tag).map_err(reference_error)?,
        None => {}
    }
    if reference.tag().is_none() && reference.digest().is_none() {
        return Err(Error::unsupported("pulling all tags of a repository"));
    }
    Ok(reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_tag_make_one_reference() {
        let of = |image, tag| parse_reference(image, tag).map(|r| r.familiar());
        assert_eq!(of("busybox", Some("1")).unwrap(), "busybox:1");
        assert_eq!(of("busybox:2", None).unwrap(), "busybox:2");
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(of("busybox", Some(&digest)).unwrap(), format!("busybox@{digest}"));
        assert_eq!(of("Busy", None).unwrap_err().kind(), crate::ErrorKind::InvalidParameter);
        assert_eq!(of("busybox", None).unwrap_err().kind(), crate::ErrorKind::Unsupported);
    }

    #[test]
    fn a_failure_has_dockers_shape() {
        let json = serde_json::to_string(&FetchMessage::failed(&Error::invalid("no"))).unwrap();
        assert_eq!(json, r#"{"error":"no","errorDetail":{"message":"no"}}"#);
    }
}
