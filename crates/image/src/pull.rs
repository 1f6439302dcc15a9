//! Pulling: from a reference to an image in the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::config::ImageConfig;
use crate::digest::{Digest, ImageId};
use crate::error::PullError;
use crate::job::{Job, State, Wanted, interrupted};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::{Content, Descriptor, Document, Platform, RegistryAuth, Session, select};
use crate::store::{ImageStore, NewImage};

/// A manifest list may point at a list, but not for ever.
const MAX_LISTS: usize = 2;

/// Clients redraw a line for each event.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Credentials for the registry.
    pub auth: Option<RegistryAuth>,
    /// Which of a manifest list's images; this machine's if `None`.
    pub platform: Option<Platform>,
}

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub id: ImageId,
    /// Digest of the manifest, or manifest list, that the reference means.
    pub digest: Digest,
    /// Whether anything was downloaded.
    pub downloaded: bool,
}

impl ImageStore {
    /// Pulls an image (its `latest` if `reference` has neither tag nor digest). Stops, leaving nothing behind, when the
    /// future is dropped.
    pub async fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &Progress,
    ) -> Result<Pulled, PullError> {
        let reference = reference.key();
        let (session, document) = Session::start(&self.inner.registry, &reference, options.auth.as_ref())
            .await
            .map_err(|error| error.into_pull(&reference))?;
        let session = Arc::new(session);
        let named = reference
            .digest()
            .map_or_else(|| reference.tag().unwrap_or_default().to_owned(), |digest| digest.to_string());
        progress.about(named, format!("Pulling from {}", reference.path()));
        let digest = document.digest;
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let (config, layers) = choose_image(&session, document, &platform, &reference).await?;

        let references = [Some(reference.with_digest(digest)), reference.tag().map(|_| reference.clone())];
        let references: Vec<Reference> = references.into_iter().flatten().collect();
        let id = config.digest;
        let downloaded = if self.set_references(id, &references).await? {
            false
        } else {
            self.pull_image(&session, &reference, &config, &layers, references, progress).await?;
            true
        };
        progress.line(format!("Digest: {digest}"));
        let status = if downloaded { "Downloaded newer image" } else { "Image is up to date" };
        progress.line(format!("Status: {status} for {}", reference.familiar()));
        Ok(Pulled { id, digest, downloaded })
    }

    /// Points the references at an image that is here already; whether it is.
    async fn set_references(&self, id: ImageId, references: &[Reference]) -> Result<bool, PullError> {
        if self.get(&id).is_none() {
            return Ok(false);
        }
        let references = references.to_vec();
        let set = move |meta: &mut crate::meta::Meta| {
            let known = meta.images.contains_key(&id);
            references.into_iter().filter(|_| known).for_each(|reference| meta.set_reference(reference, id));
            known
        };
        self.blocking(move |inner| inner.change(|meta, _| Ok::<_, PullError>(set(meta)))).await
    }

    async fn pull_image(
        &self,
        session: &Arc<Session>,
        reference: &Reference,
        descriptor: &Descriptor,
        blobs: &[Descriptor],
        references: Vec<Reference>,
        progress: &Progress,
    ) -> Result<(), PullError> {
        let malformed = |reason: String| PullError::Malformed { reference: reference.familiar(), reason };
        let document = session.config(descriptor).await?;
        let config = ImageConfig::parse(&document).map_err(|error| malformed(format!("image config: {error}")))?;
        if !matches!(config.os.as_str(), "" | "linux") {
            return Err(PullError::Unsupported(format!(
                "image operating system {:?} cannot be used on this platform",
                config.os
            )));
        }
        let diffs = &config.rootfs.diff_ids;
        if diffs.len() != blobs.len() {
            return Err(malformed(format!("its manifest has {} layers, its config {}", blobs.len(), diffs.len())));
        }
        let chains = Digest::chains(diffs);
        let lease = self.inner.lease(chains.clone());
        let parents = std::iter::once(None).chain(chains.iter().copied().map(Some));
        let layers = blobs.iter().zip(diffs).zip(&chains).zip(parents);
        let wanted = layers.map(|(((blob, diff), chain), parent)| Wanted {
            blob: blob.clone(),
            diff: *diff,
            chain: *chain,
            parent,
        });
        self.pull_layers(session, wanted.collect(), progress).await?;
        let image = NewImage { id: descriptor.digest, document, config, references };
        self.blocking(move |inner| inner.commit_image(&image)).await?;
        drop(lease);
        Ok(())
    }

    /// Gets all layers that are not here, and draws each as it comes.
    async fn pull_layers(
        &self,
        session: &Arc<Session>,
        wanted: Vec<Wanted>,
        progress: &Progress,
    ) -> Result<(), PullError> {
        let mut below: Option<Arc<Job>> = None;
        let mut jobs = Vec::new();
        for layer in wanted {
            let id = layer.blob.digest.short();
            if self.inner.has_layer(&layer.chain) {
                progress.state(&id, "Already exists");
                below = None;
                continue;
            }
            progress.state(&id, "Pulling fs layer");
            let job = self.inner.ensure_job(&layer, session, below.take());
            below = Some(job.clone());
            jobs.push((id, layer.blob.size, job));
        }
        let all = jobs.iter().map(|(id, size, job)| report(id, *size, job.watch(), progress));
        let reported = futures::future::try_join_all(all).await;
        drop(jobs);
        reported.map(drop)
    }
}

/// Follows manifest lists to the image for a platform: its configuration and layers.
async fn choose_image(
    session: &Session,
    mut document: Document,
    platform: &Platform,
    reference: &Reference,
) -> Result<(Descriptor, Vec<Descriptor>), PullError> {
    for _ in 0..=MAX_LISTS {
        let list = match document.content {
            Content::Image { config, layers } => return Ok((config, layers)),
            Content::List(list) => list,
        };
        let chosen = select(&list, platform).ok_or_else(|| PullError::NoPlatform(platform.to_string()))?;
        document = session.manifest(&chosen.digest.to_string()).await.map_err(|error| error.into_pull(reference))?;
    }
    Err(PullError::Malformed {
        reference: reference.familiar(),
        reason: "its manifest lists lead only to lists".to_owned(),
    })
}

/// Draws one layer's way until it is there.
async fn report(id: &str, size: u64, mut state: watch::Receiver<State>, progress: &Progress) -> Result<(), PullError> {
    let mut drawn = Drawn { stage: 0, at: None };
    loop {
        let now = state.borrow_and_update().clone();
        if let Some(end) = drawn.draw(id, size, &now, progress) {
            return end;
        }
        state.changed().await.map_err(|_| PullError::from(interrupted()))?;
    }
}

/// What of a layer the client has seen. States that were too short to be seen are made up for: clients count them.
struct Drawn {
    stage: u8,
    at: Option<Instant>,
}

impl Drawn {
    fn draw(&mut self, id: &str, size: u64, state: &State, progress: &Progress) -> Option<Result<(), PullError>> {
        match state {
            State::Waiting => self.reach(1, id, progress),
            State::Retrying { seconds } => {
                progress.state(id, &format!("Retrying in {seconds} second{}", if *seconds == 1 { "" } else { "s" }));
            }
            State::Downloading { bytes } => self.draw_bytes("Downloading", id, *bytes, size, progress),
            State::Verifying => self.reach(2, id, progress),
            State::Downloaded => self.reach(3, id, progress),
            State::Extracting { bytes } => {
                self.reach(3, id, progress);
                self.draw_bytes("Extracting", id, *bytes, size, progress);
            }
            State::Done => {
                self.reach(3, id, progress);
                progress.bytes(id, "Extracting", size, size);
                progress.state(id, "Pull complete");
                return Some(Ok(()));
            }
            State::Failed(error) => return Some(Err(error.clone())),
        }
        None
    }

    fn reach(&mut self, stage: u8, id: &str, progress: &Progress) {
        const STAGES: [&str; 3] = ["Waiting", "Verifying Checksum", "Download complete"];
        for name in STAGES.iter().take(usize::from(stage)).skip(usize::from(self.stage.max(u8::from(stage > 1)))) {
            progress.state(id, name);
        }
        self.stage = self.stage.max(stage);
    }

    fn draw_bytes(&mut self, status: &str, id: &str, bytes: u64, size: u64, progress: &Progress) {
        if self.at.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
            self.at = Some(Instant::now());
            progress.bytes(id, status, bytes, size);
        }
    }
}
