//! What a registry did wrong, or what kept us from it, in the words that Docker has for it.

use std::io;
use std::time::Duration;

use reqwest::Method;

use crate::digest::Digest;
use crate::error::{ErrorKind, PullError};
use crate::reference::Reference;

/// A failed exchange with a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It answered with an error document.
    #[error("{}: {message}", code.to_lowercase().replace('_', " "))]
    Api {
        /// `MANIFEST_UNKNOWN` and the like.
        code: String,
        /// Its explanation.
        message: String,
    },
    /// It answered with a status that has no place here.
    #[error("received unexpected HTTP status: {0}")]
    Status(String),
    /// It could not be reached, or broke off.
    #[error("{method} \"{url}\": {reason}")]
    Http {
        /// `Get` or `Head`.
        method: &'static str,
        /// Of the request.
        url: String,
        /// In the words of Go's HTTP client where Docker's users know them.
        reason: String,
    },
    /// It wants credentials that we do not have, or no token could be got for those that we have.
    #[error("{method} \"{url}\": {reason}")]
    Auth {
        /// `Get` or `Head`.
        method: &'static str,
        /// Of the request that needed them.
        url: String,
        /// Why there are none.
        reason: String,
    },
    /// It sent nothing for too long.
    #[error("{method} \"{url}\": the registry sent nothing for {} s", silence.as_secs_f32())]
    Stalled {
        /// `Get` or `Head`.
        method: &'static str,
        /// Of the request.
        url: String,
        /// How long we waited.
        silence: Duration,
    },
    /// A document is larger than any real one.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// The document.
        what: String,
        /// How large it may be.
        limit: u64,
    },
    /// A blob has another size than its manifest says.
    #[error("blob {digest} is {actual} bytes, but the manifest says {expected}")]
    Size {
        /// Of the blob.
        digest: Digest,
        /// As described.
        expected: u64,
        /// As sent, or as announced; at least this many when it was cut off.
        actual: u64,
    },
    /// A layer's content is not what its digest says.
    #[error("filesystem layer verification failed for digest {0}")]
    LayerDigest(Digest),
    /// A configuration document is not what its digest says.
    #[error("image config verification failed for digest {0}")]
    ConfigDigest(Digest),
    /// A manifest is not what its digest says.
    #[error("manifest verification failed for digest {0}")]
    ManifestDigest(Digest),
    /// A manifest cannot be understood.
    #[error("registry sent a malformed manifest: {0}")]
    Manifest(String),
    /// A manifest of a kind that is no image.
    #[error("unsupported manifest media type {0:?}: only images in the Docker schema 2 and OCI formats can be pulled")]
    MediaType(String),
    /// Certificates for the registry cannot be used.
    #[error("certificates in {path}: {reason}")]
    Certificates {
        /// The directory or file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

impl RegistryError {
    /// Every failure of another party is an internal error to the client, as in Docker; authentication too.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Api { code, .. } if matches!(code.as_str(), "MANIFEST_UNKNOWN" | "NAME_UNKNOWN" | "DENIED") => {
                ErrorKind::NotFound
            }
            Self::MediaType(_) => ErrorKind::InvalidInput,
            _ => ErrorKind::Remote,
        }
    }

    /// The code of the registry's error document.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Api { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether trying again may help.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Http { .. } | Self::Stalled { .. } | Self::Status(_))
    }

    /// The pull error that Docker makes of an answer about `reference`.
    pub(crate) fn into_pull(self, reference: &Reference) -> PullError {
        let cause = self.to_string();
        match &self {
            Self::Api { code, .. } => match code.as_str() {
                "DENIED" => PullError::Denied { name: reference.familiar_name(), cause },
                "MANIFEST_UNKNOWN" => PullError::ManifestUnknown { reference: reference.familiar(), cause },
                "NAME_UNKNOWN" => PullError::NameUnknown { name: reference.familiar_name(), cause },
                _ => self.into(),
            },
            _ => self.into(),
        }
    }

    /// Puts a failure of the HTTP client into words.
    pub(crate) fn http(method: &Method, url: &str, error: &reqwest::Error) -> Self {
        Self::Http { method: go_method(method), url: url.to_owned(), reason: reason(error) }
    }

    pub(crate) fn stalled(method: &Method, url: &str, silence: Duration) -> Self {
        Self::Stalled { method: go_method(method), url: url.to_owned(), silence }
    }
}

pub(crate) fn go_method(method: &Method) -> &'static str {
    match *method {
        Method::HEAD => "Head",
        Method::POST => "Post",
        _ => "Get",
    }
}

/// The cause at the bottom of an HTTP client's error, as Go writes it where users and scripts know Go's words.
fn reason(error: &reqwest::Error) -> String {
    if error.is_redirect() {
        return "stopped after 10 redirects".to_owned();
    }
    let address = error
        .url()
        .map(|url| format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(0)));
    let address = address.unwrap_or_default();
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        if let Some(words) = known(source, &address) {
            return words;
        }
        deepest = source;
    }
    deepest.to_string()
}

fn known(error: &(dyn std::error::Error + 'static), address: &str) -> Option<String> {
    if let Some(error) = error.downcast_ref::<super::http::LookupError>() {
        return Some(format!("dial tcp: {error}"));
    }
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(tls_reason(error));
    }
    let error = error.downcast_ref::<io::Error>()?;
    // the source of an I/O error is its content's source: the content itself must be asked for
    if let Some(words) = error.get_ref().and_then(|content| known(content, address)) {
        return Some(words);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(format!("dial tcp {address}: connect: connection refused")),
        io::ErrorKind::NetworkUnreachable => Some(format!("dial tcp {address}: connect: network is unreachable")),
        io::ErrorKind::HostUnreachable => Some(format!("dial tcp {address}: connect: no route to host")),
        io::ErrorKind::TimedOut => Some(format!("dial tcp {address}: i/o timeout")),
        io::ErrorKind::UnexpectedEof => Some("unexpected EOF".to_owned()),
        _ => None,
    }
}

fn tls_reason(error: &rustls::Error) -> String {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer};
    match error {
        rustls::Error::InvalidMessage(_) => "http: server gave HTTP response to HTTPS client".to_owned(),
        rustls::Error::InvalidCertificate(UnknownIssuer) => {
            "tls: failed to verify certificate: x509: certificate signed by unknown authority".to_owned()
        }
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
            "tls: failed to verify certificate: x509: certificate has expired or is not yet valid".to_owned()
        }
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "tls: failed to verify certificate: x509: certificate is not valid for the registry's name".to_owned()
        }
        error => format!("tls: {error}"),
    }
}

/// Whether an endpoint that failed so may still have another scheme or a substitute: it gave no answer of its own.
pub(crate) fn is_unreachable(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Http { .. } | RegistryError::Stalled { .. })
}
