//! The authority as this node calls it: the root certificate, checked against a join token, and certificates for this
//! node's keys (swarm-semantics 9).

use std::sync::Arc;
use std::time::Duration;

use rcgen::KeyPair;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use shoal_manager::Peer;
use shoal_manager::ca::{CaError, CaService, JoinToken, Request, RequestError, Subject};
use shoal_types::{Refusal, RefusalKind, Timestamp};
use shoal_wire::UplinkError;
use shoal_wire::proto::certificate_authority_client::CertificateAuthorityClient;
use shoal_wire::proto::certificate_authority_server::CertificateAuthority;
use shoal_wire::proto::{IssueRequest, IssueResponse, RootRequest};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status};

use crate::dialer::{connection, plain, unreachable};
use crate::identity::{Identity, IdentityError, Issued, trusting};

/// How long a manager may take for an answer that it may have to ask the leader for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Nobody answers there.
    #[error("connection error: desc = \"transport: Error while dialing: dial tcp {addr}: {reason}\"")]
    Unreachable {
        /// Where.
        addr: String,
        /// The system's words.
        reason: String,
    },
    /// A manager says no.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// It took too long.
    #[error("context deadline exceeded")]
    Silent,
    /// Another cluster answers than the token is for.
    #[error("remote CA does not match fingerprint. Expected: {0}")]
    Fingerprint(String),
    /// What came back is not a certificate for this node.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The request cannot be made.
    #[error(transparent)]
    Request(#[from] CaError),
    /// The request is not one.
    #[error(transparent)]
    Read(#[from] RequestError),
    /// There is no way to the manager.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
}

/// Any certificate will do: only for asking who is there.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl AuthorityError {
    /// Whether trying again may help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent | Self::Uplink(_) => true,
            Self::Refused(status) => {
                matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled)
            }
            _ => false,
        }
    }
}

impl From<AuthorityError> for Refusal {
    fn from(error: AuthorityError) -> Self {
        let text = error.to_string();
        match &error {
            AuthorityError::Unreachable { .. } | AuthorityError::Uplink(_) => Self::new(RefusalKind::Unavailable, text),
            AuthorityError::Silent => Self::new(RefusalKind::DeadlineExceeded, text),
            AuthorityError::Refused(status) => Self::new(kind(status.code()), text),
            _ => Self::engine(RefusalKind::Internal, text),
        }
    }
}

fn kind(code: Code) -> RefusalKind {
    match code {
        Code::InvalidArgument => RefusalKind::InvalidArgument,
        Code::FailedPrecondition => RefusalKind::FailedPrecondition,
        Code::NotFound => RefusalKind::NotFound,
        Code::PermissionDenied => RefusalKind::PermissionDenied,
        Code::Unavailable => RefusalKind::Unavailable,
        Code::DeadlineExceeded => RefusalKind::DeadlineExceeded,
        Code::Aborted => RefusalKind::Aborted,
        Code::Internal => RefusalKind::Internal,
        _ => RefusalKind::Unknown,
    }
}

/// The root certificate of the cluster that the manager on `addr` belongs to, if it is the one that `token` is for. PEM.
///
/// # Errors
/// [`AuthorityError`].
pub async fn root(addr: &str, token: &JoinToken) -> Result<String, AuthorityError> {
    let anyone = Arc::new(Anyone(Arc::new(rustls::crypto::ring::default_provider())));
    let tls = ClientTlsConfig::new().domain_name(shoal_manager::ca::MANAGER_NAME);
    let endpoint = plain(addr)?.tls_config_with_verifier(tls, anyone).map_err(|e| unreachable(addr, e))?;
    let channel = connect(addr, &endpoint).await?;
    let mut client = CertificateAuthorityClient::new(channel);
    let root = prompt(client.root(RootRequest {})).await?.root_ca;
    if token.is_for(&root) { Ok(root) } else { Err(AuthorityError::Fingerprint(token.fingerprint())) }
}

/// A certificate for a new node with `key`, from the manager on `addr`, whose root has been checked.
///
/// # Errors
/// [`AuthorityError`].
pub async fn join(addr: &str, root: &str, ask: IssueRequest, key: &KeyPair) -> Result<Identity, AuthorityError> {
    let channel = connect(addr, &connection(addr, trusting(root))?).await?;
    issue(channel, ask, key).await
}

/// What a manager answers to `ask`, which is about `key`.
///
/// # Errors
/// [`AuthorityError`].
pub async fn issue(channel: Channel, ask: IssueRequest, key: &KeyPair) -> Result<Identity, AuthorityError> {
    let ask = IssueRequest { csr: Request::write(key)?, ..ask };
    granted(prompt(CertificateAuthorityClient::new(channel).issue(ask)).await?, key)
}

/// A certificate for this node with `key`, from its own manager.
///
/// # Errors
/// [`AuthorityError`].
pub async fn from_own(authority: &CaService, me: &Identity, key: &KeyPair) -> Result<Identity, AuthorityError> {
    let csr = Request::write(key)?;
    // Where all managers were off for too long, none can prove itself to the others. But each has the authority.
    if me.has_expired(Timestamp::now())
        && let Some(answer) = authority.for_itself(me.node, &Request::read(&csr)?)
    {
        return granted(answer, key);
    }
    let subject = Subject { node: me.node, role: me.role, cluster: me.cluster };
    let mut ask = tonic::Request::new(IssueRequest { csr, ..IssueRequest::default() });
    ask.extensions_mut().insert(Peer { subject, addr: String::new() });
    granted(prompt(CertificateAuthority::issue(authority, ask)).await?, key)
}

fn granted(answer: IssueResponse, key: &KeyPair) -> Result<Identity, AuthorityError> {
    let issued = Issued { cert_pem: answer.certificate, key_pem: key.serialize_pem() };
    Ok(Identity::new(issued, answer.root_ca)?)
}

async fn connect(addr: &str, endpoint: &Endpoint) -> Result<Channel, AuthorityError> {
    endpoint.connect().await.map_err(|error| match cause(&error) {
        Some(reason) => AuthorityError::Unreachable { addr: addr.to_owned(), reason },
        None => unreachable(addr, error).into(),
    })
}

/// The system's words for why there is no connection, as Docker's clients know them.
fn cause(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>().filter(|e| e.raw_os_error().is_some()) {
            let text = io.to_string();
            let words = text.split(" (os error").next().unwrap_or_default().to_lowercase();
            return Some(format!("connect: {words}"));
        }
        next = error.source();
    }
    None
}

async fn prompt<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, AuthorityError> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(AuthorityError::Refused(Box::new(status))),
        Err(_) => Err(AuthorityError::Silent),
    }
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
