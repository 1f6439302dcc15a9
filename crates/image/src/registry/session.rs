//! Talking to one repository of one registry.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::{Method, Response, StatusCode, header};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::auth::{Challenge, RegistryAuth, parse_challenges};
use super::endpoint::{Endpoint, Registry};
use super::error::{RegistryError, is_unreachable};
use super::manifest::{ACCEPT, Descriptor, Document};
use super::{RegistryConfig, http};
use crate::digest::Digest;
use crate::reference::Reference;

const MAX_MANIFEST: u64 = 4 << 20;
const MAX_CONFIG: u64 = 8 << 20;
const MAX_ERROR: u64 = 64 << 10;

/// A repository at an address that answered.
pub(crate) struct Session {
    pub(super) client: reqwest::Client,
    pub(super) path: String,
    pub(super) config: Arc<RegistryConfig>,
    pub(super) credentials: Option<RegistryAuth>,
    base: String,
    /// The `Authorization` header that worked last.
    authorization: Mutex<Option<String>>,
}

/// A layer on its way.
pub(crate) struct BlobBody {
    response: Response,
    url: String,
    config: Arc<RegistryConfig>,
    /// The first byte's place in the blob.
    pub start: u64,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
    /// Some token servers answer so.
    #[serde(default)]
    details: Option<String>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    code: String,
    #[serde(default)]
    message: Option<String>,
}

impl Session {
    /// Finds the address at which to get `reference` and its manifest there. Each address is tried in turn; the last
    /// one's error is returned.
    pub async fn start(
        registry: &Registry,
        reference: &Reference,
        auth: Option<&RegistryAuth>,
    ) -> Result<(Self, Document), RegistryError> {
        let endpoints = registry.endpoints(reference.domain());
        let last = endpoints.len() - 1;
        for (index, endpoint) in endpoints.iter().enumerate() {
            let error = match Self::try_start(registry, endpoint, reference, auth).await {
                Ok(started) => return Ok(started),
                Err(error) => error,
            };
            // an answer of the registry itself is final; a mirror's is not
            if index == last || !(endpoint.mirror || is_unreachable(&error)) {
                return Err(error);
            }
            tracing::debug!(base = endpoint.base, %error, "trying the registry's next address");
        }
        unreachable!("every registry has an address")
    }

    async fn try_start(
        registry: &Registry,
        endpoint: &Endpoint,
        reference: &Reference,
        auth: Option<&RegistryAuth>,
    ) -> Result<(Self, Document), RegistryError> {
        let config = registry.config.clone();
        let session = Self {
            client: http::client(&config, &endpoint.host, endpoint.insecure, endpoint.loopback)?,
            base: endpoint.base.clone(),
            path: reference.path().to_owned(),
            // a mirror is another party than the registry that the credentials are for
            credentials: auth.filter(|_| !endpoint.mirror).cloned(),
            config,
            authorization: Mutex::default(),
        };
        let name = reference
            .digest()
            .map_or_else(|| reference.tag().unwrap_or("latest").to_owned(), |digest| digest.to_string());
        if session.ping().await? == StatusCode::UNAUTHORIZED {
            session.authorize(&name).await?;
        }
        let document = session.manifest(&name).await?;
        Ok((session, document))
    }

    /// Whether there is a registry at all; any answer will do.
    async fn ping(&self) -> Result<StatusCode, RegistryError> {
        let url = format!("{}/v2/", self.base);
        self.await_answer(&Method::GET, &url, self.client.get(&url).send()).await.map(|response| response.status())
    }

    /// Gets the authorization for a manifest. It is asked for as Docker does it, with HEAD: clients know the error by
    /// that word.
    async fn authorize(&self, name: &str) -> Result<(), RegistryError> {
        let url = self.manifest_url(name);
        let request = self.client.head(&url).header(header::ACCEPT, ACCEPT);
        let response = self.await_answer(&Method::HEAD, &url, request.send()).await?;
        let challenges = challenges(&response);
        if response.status() == StatusCode::UNAUTHORIZED && !challenges.is_empty() {
            *self.authorization.lock().await = Some(self.answer(&challenges, &Method::HEAD, &url).await?);
        }
        Ok(())
    }

    fn manifest_url(&self, name: &str) -> String {
        format!("{}/v2/{}/manifests/{name}", self.base, self.path)
    }

    /// The manifest with this tag or digest.
    pub async fn manifest(&self, name: &str) -> Result<Document, RegistryError> {
        let response = self.get(&self.manifest_url(name), Some(ACCEPT), 0).await?;
        let text = |key: &str| {
            response.headers().get(key).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (media_type, claimed) = (text("content-type"), text("docker-content-digest"));
        let content = read_limited(response, "manifest", MAX_MANIFEST, &self.config).await?;
        let digest = Digest::of(&content);
        let expected = name.parse().or_else(|_| claimed.parse::<Digest>());
        if let Some(expected) = expected.ok().filter(|expected| *expected != digest) {
            return Err(RegistryError::ManifestDigest(expected));
        }
        Document::parse(&content, &media_type)
    }

    /// How often a download is tried.
    pub fn max_attempts(&self) -> u32 {
        self.config.max_download_attempts
    }

    /// An image's configuration document.
    pub async fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let (digest, size) = (descriptor.digest, descriptor.size);
        if size > MAX_CONFIG {
            return Err(RegistryError::TooLarge { what: format!("image config {digest}"), limit: MAX_CONFIG });
        }
        let response = self.get(&self.blob_url(&digest), None, 0).await?;
        let content = read_limited(response, "image config", MAX_CONFIG, &self.config).await?;
        if content.len() as u64 != size {
            return Err(RegistryError::Size { digest, expected: size, actual: content.len() as u64 });
        }
        if Digest::of(&content) != digest { Err(RegistryError::ConfigDigest(digest)) } else { Ok(content) }
    }

    /// Starts to download a blob at `offset`. The registry may start at the beginning all the same.
    pub async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobBody, RegistryError> {
        let (digest, expected) = (descriptor.digest, descriptor.size);
        let url = self.blob_url(&digest);
        let response = self.get(&url, None, offset).await?;
        let start = if response.status() == StatusCode::PARTIAL_CONTENT { offset } else { 0 };
        match response.content_length() {
            Some(length) if start.saturating_add(length) != expected => {
                Err(RegistryError::Size { digest, expected, actual: start.saturating_add(length) })
            }
            _ => Ok(BlobBody { response, url, config: self.config.clone(), start }),
        }
    }

    fn blob_url(&self, digest: &Digest) -> String {
        format!("{}/v2/{}/blobs/{digest}", self.base, self.path)
    }

    /// Sends a request, answering a challenge to it once.
    async fn get(&self, url: &str, accept: Option<&str>, offset: u64) -> Result<Response, RegistryError> {
        let used = self.authorization.lock().await.clone();
        let response = self.send(url, accept, offset, used.as_deref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return check_status(response, &self.config).await;
        }
        let challenges = challenges(&response);
        if challenges.is_empty() {
            return check_status(response, &self.config).await;
        }
        let fresh = {
            // several layers meet an expired token at once: one of them gets the new one
            let mut authorization = self.authorization.lock().await;
            if *authorization == used {
                *authorization = Some(self.answer(&challenges, &Method::GET, url).await?);
            }
            authorization.clone()
        };
        let response = self.send(url, accept, offset, fresh.as_deref()).await?;
        check_status(response, &self.config).await
    }

    async fn send(
        &self,
        url: &str,
        accept: Option<&str>,
        offset: u64,
        authorization: Option<&str>,
    ) -> Result<Response, RegistryError> {
        let mut request = self.client.get(url);
        if let Some(accept) = accept {
            request = request.header(header::ACCEPT, accept);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        self.await_answer(&Method::GET, url, request.send()).await
    }

    /// Waits for an answer's head, but not forever.
    pub(super) async fn await_answer(
        &self,
        method: &Method,
        url: &str,
        answer: impl Future<Output = Result<Response, reqwest::Error>>,
    ) -> Result<Response, RegistryError> {
        match tokio::time::timeout(self.config.stall_timeout, answer).await {
            Ok(answer) => answer.map_err(|error| RegistryError::http(method, url, &error)),
            Err(_) => Err(RegistryError::stalled(method, url, self.config.stall_timeout)),
        }
    }
}

impl BlobBody {
    /// Where it comes from.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The next piece; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        next_chunk(&mut self.response, &self.url, &self.config).await
    }
}

async fn next_chunk(
    response: &mut Response,
    url: &str,
    config: &RegistryConfig,
) -> Result<Option<Bytes>, RegistryError> {
    match tokio::time::timeout(config.stall_timeout, response.chunk()).await {
        Ok(chunk) => chunk.map_err(|error| RegistryError::http(&Method::GET, url, &error)),
        Err(_) => Err(RegistryError::stalled(&Method::GET, url, config.stall_timeout)),
    }
}

/// Reads a whole body, up to a limit.
pub(super) async fn read_limited(
    mut response: Response,
    what: &str,
    limit: u64,
    config: &RegistryConfig,
) -> Result<Vec<u8>, RegistryError> {
    let url = response.url().to_string();
    let too_large = || RegistryError::TooLarge { what: format!("{what} from {url}"), limit };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut content = Vec::new();
    while let Some(chunk) = next_chunk(&mut response, &url, config).await? {
        if (content.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        content.extend_from_slice(&chunk);
    }
    Ok(content)
}

/// Passes a good answer on, and makes an error of any other.
pub(super) async fn check_status(response: Response, config: &RegistryConfig) -> Result<Response, RegistryError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let reason = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default()).trim_end().to_owned();
    if !status.is_client_error() {
        return Err(RegistryError::Status(reason));
    }
    let header_error = challenge_texts(&response, |headers| parse_challenges(headers).1);
    if let Some(error) = header_error {
        return Err(RegistryError::Api { code: error.code.to_owned(), message: error.message });
    }
    let body = read_limited(response, "error document", MAX_ERROR, config).await.unwrap_or_default();
    let body: Option<ErrorBody> = serde_json::from_slice(&body).ok();
    let entry = body.and_then(|body| {
        let details =
            body.details.map(|details| ErrorEntry { code: "UNAUTHORIZED".to_owned(), message: Some(details) });
        body.errors.into_iter().next().or(details)
    });
    match (entry, status) {
        (Some(ErrorEntry { code, message }), _) => {
            let message =
                message.filter(|message| !message.is_empty()).unwrap_or_else(|| default_message(&code).to_owned());
            Err(RegistryError::Api { code: code.to_uppercase(), message })
        }
        (None, StatusCode::UNAUTHORIZED) => Err(RegistryError::Api {
            code: "UNAUTHORIZED".to_owned(),
            message: default_message("UNAUTHORIZED").to_owned(),
        }),
        (None, _) => Err(RegistryError::Status(reason)),
    }
}

fn challenges(response: &Response) -> Vec<Challenge> {
    challenge_texts(response, |headers| parse_challenges(headers).0)
}

fn challenge_texts<T>(response: &Response, parse: impl FnOnce(&mut dyn Iterator<Item = &str>) -> T) -> T {
    parse(&mut response.headers().get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()))
}

/// What the registry protocol's code means, where a registry says nothing more.
fn default_message(code: &str) -> &'static str {
    match code {
        "DENIED" => "requested access to the resource is denied",
        "UNAUTHORIZED" => "authentication required",
        "MANIFEST_UNKNOWN" => "manifest unknown",
        "NAME_UNKNOWN" => "repository name not known to registry",
        "BLOB_UNKNOWN" => "blob unknown to registry",
        "TOOMANYREQUESTS" => "too many requests",
        _ => "unknown error",
    }
}
