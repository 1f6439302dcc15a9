//! Images of tasks (swarm-semantics 2.5): pulled before each container, unless the reference names content that is here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use shoal_engine::{Engine, ErrorKind};
use shoal_lifecycle::Failure;

/// How long an unreachable registry is not asked again for an image that is here: fifty tasks of a service must not wait
/// for it fifty times.
const QUIET: Duration = Duration::from_secs(30);

type Pull = Shared<BoxFuture<'static, Result<(), String>>>;
type Key = (String, Option<String>);

/// Pulls images, each once at a time.
pub(super) struct Images {
    engine: Arc<Engine>,
    pulls: Arc<Mutex<HashMap<Key, Pull>>>,
    failed: Mutex<HashMap<String, Instant>>,
}

impl Images {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine, pulls: Arc::default(), failed: Mutex::default() }
    }

    /// Makes sure that `image` is here and as new as the registry has it. Where the registry cannot be asked, an image that
    /// is here will do.
    pub(super) async fn ensure(&self, image: &str, auth: Option<&str>) -> Result<(), Failure> {
        let present = self.is_present(image).await?;
        if present && (is_content(image) || self.failed_lately(image)) {
            return Ok(());
        }
        match self.pull(image, auth).await {
            Ok(()) => Ok(()),
            Err(error) if present => {
                tracing::debug!("using {image} as it is here: {error}");
                self.failed.lock().expect("nothing panics while it is held").insert(image.to_owned(), Instant::now());
                Ok(())
            }
            Err(error) => Err(Failure::Final(error)),
        }
    }

    async fn is_present(&self, image: &str) -> Result<bool, Failure> {
        match self.engine.inspect_image(image).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Failure::Final(error.to_string())),
        }
    }

    fn failed_lately(&self, image: &str) -> bool {
        let mut failed = self.failed.lock().expect("nothing panics while it is held");
        failed.retain(|_, at| at.elapsed() < QUIET);
        failed.contains_key(image)
    }

    /// One pull for all that wait for it; it goes on when they lose interest.
    async fn pull(&self, image: &str, auth: Option<&str>) -> Result<(), String> {
        let key = (image.to_owned(), auth.map(str::to_owned));
        let pull = {
            let mut pulls = self.pulls.lock().expect("nothing panics while it is held");
            let (engine, running) = (self.engine.clone(), self.pulls.clone());
            pulls.entry(key.clone()).or_insert_with(|| begin(engine, running, key)).clone()
        };
        pull.await
    }
}

fn begin(engine: Arc<Engine>, running: Arc<Mutex<HashMap<Key, Pull>>>, key: Key) -> Pull {
    let pull = tokio::spawn(async move {
        let pulled = engine.pull_quietly(&key.0, key.1.as_deref()).await.map_err(|e| e.to_string());
        running.lock().expect("nothing panics while it is held").remove(&key);
        pulled
    });
    async move { pull.await.unwrap_or_else(|_| Err("the engine is shutting down".to_owned())) }.boxed().shared()
}

/// A digest or an image's own identifier: what is here is what is meant.
fn is_content(image: &str) -> bool {
    let id = image.strip_prefix("sha256:").unwrap_or(image);
    image.contains("@sha256:") || (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}
