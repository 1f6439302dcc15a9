//! Images made by hand.

use std::collections::HashMap;

use shoal_image::{Digest, Reference};

use super::{Fake, Registry, Reply, Request, gzip};

pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image as a registry has it.
#[derive(Clone)]
pub struct TestImage {
    pub config: Vec<u8>,
    /// Compressed, bottom first.
    pub layers: Vec<Vec<u8>>,
    pub manifest: Vec<u8>,
    pub media_type: &'static str,
}

/// A layer of files.
pub fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, *data).expect("in memory");
    }
    builder.into_inner().expect("in memory")
}

impl TestImage {
    /// An image of uncompressed layers, gzipped.
    pub fn new(layers: &[Vec<u8>]) -> Self {
        Self::of(layers, OCI_MANIFEST, gzip, &[])
    }

    pub fn of(layers: &[Vec<u8>], media_type: &'static str, compress: impl Fn(&[u8]) -> Vec<u8>, env: &[&str]) -> Self {
        let diffs: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let config = serde_json::json!({"architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
            "config": {"Cmd": ["sh"], "Env": env}, "rootfs": {"type": "layers", "diff_ids": diffs}});
        let compressed = layers.iter().map(|layer| compress(layer)).collect();
        Self::assemble(config.to_string().into_bytes(), compressed, media_type)
    }

    pub fn assemble(config: Vec<u8>, layers: Vec<Vec<u8>>, media_type: &'static str) -> Self {
        let descriptor = |data: &[u8]| serde_json::json!({"mediaType": "x/y", "digest": Digest::of(data).to_string(), "size": data.len()});
        let described: Vec<_> = layers.iter().map(|layer| descriptor(layer)).collect();
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "config": descriptor(&config), "layers": described});
        Self { config, layers, manifest: manifest.to_string().into_bytes(), media_type }
    }

    pub fn id(&self) -> Digest {
        Digest::of(&self.config)
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub fn blobs(&self) -> HashMap<String, Vec<u8>> {
        let blobs = self.layers.iter().chain([&self.config]);
        blobs.map(|blob| (Digest::of(blob).to_string(), blob.clone())).collect()
    }

    /// What an honest registry answers; for tests that change one answer.
    pub fn answer(&self, request: &Request) -> Reply {
        let last = request.path.rsplit('/').next().unwrap_or_default();
        if request.path == "/v2/" {
            return Reply::ok("application/json", b"{}");
        }
        if request.path.contains("/manifests/") {
            return Reply::ok(self.media_type, &self.manifest);
        }
        match self.blobs().get(last) {
            Some(blob) => Reply::ok("application/octet-stream", blob),
            None => Reply::error("404 Not Found", "BLOB_UNKNOWN", "blob unknown to registry"),
        }
    }

    /// A registry that serves this image honestly, but for what `change` answers.
    pub async fn serve_but(self, change: impl Fn(&Request, &Self) -> Option<Reply> + Send + Sync + 'static) -> Fake {
        Fake::serve(move |request| change(request, &self).unwrap_or_else(|| self.answer(request))).await
    }
}

impl Registry {
    /// Pushes through the registry's API.
    pub async fn push(&self, name: &str, image: &TestImage) -> Reference {
        let reference = self.reference(name).with_default_tag();
        for (digest, blob) in image.blobs() {
            self.push_blob(reference.path(), &digest, blob).await;
        }
        self.put_manifest(&reference, image.media_type, &image.manifest).await;
        reference
    }

    async fn push_blob(&self, path: &str, digest: &str, blob: Vec<u8>) {
        let client = reqwest_client();
        let url = format!("http://{}/v2/{path}/blobs/uploads/", self.address);
        let started = client.post(url).send().await.expect("answers");
        let location = started.headers().get("location").expect("a location").to_str().expect("text").to_owned();
        let separator = if location.contains('?') { '&' } else { '?' };
        let put = client.put(format!("{location}{separator}digest={digest}")).body(blob).send().await.expect("answers");
        assert!(put.status().is_success(), "{}", put.status());
    }

    pub async fn put_manifest(&self, reference: &Reference, media_type: &str, manifest: &[u8]) {
        let name = reference.tag().map_or_else(|| reference.digest().expect("a digest").to_string(), str::to_owned);
        let url = format!("http://{}/v2/{}/manifests/{name}", self.address, reference.path());
        let put = reqwest_client()
            .put(url)
            .header("Content-Type", media_type)
            .body(manifest.to_vec())
            .send()
            .await
            .expect("answers");
        assert!(put.status().is_success(), "{}: {}", put.status(), put.text().await.unwrap_or_default());
    }
}

fn reqwest_client() -> reqwest::Client {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().expect("a client")
}
