//! Pulls an image into a store of its own: `pull DIR REFERENCE`. Prints the progress as a docker client would receive
//! it.

use std::time::Instant;

use shoal_image::{ImageStore, Progress, PullOptions, Reference, RegistryConfig, StoreConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(root), Some(reference)) = (arguments.next(), arguments.next()) else {
        return Err("usage: pull DIR REFERENCE".into());
    };
    let store = ImageStore::open(StoreConfig {
        mounts: format!("{root}/mounts").into(),
        root: root.into(),
        registry: RegistryConfig::default(),
    })?;
    let started = Instant::now();
    let progress = Progress::new(|event| println!("{}", serde_json::to_string(&event).unwrap_or_default()));
    let pulled = store.pull(&Reference::parse(&reference)?, &PullOptions::default(), &progress).await?;
    println!("{} in {:.3} s", pulled.id, started.elapsed().as_secs_f64());
    Ok(())
}
