//! The certificate authority of the cluster (swarm-semantics 9): its root, node certificates, join tokens.
//!
//! Pure but for the randomness of keys; the time is an argument. Where certificates are kept is `node`'s business.

mod gate;
mod request;
pub mod rotation;
mod service;
mod token;
mod unlock;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use shoal_types::object::{RootCa, TlsInfo};
use shoal_types::spec::NodeRole;
use shoal_types::{Cluster, ClusterId, Nanos, NodeId, Timestamp};
use x509_parser::prelude::{FromDer, Pem, X509Certificate};

pub use gate::gate;
pub use request::{Request, RequestError};
pub use service::CaService;
pub use token::{JoinToken, TokenError, new_token, renew_secret};
pub use unlock::{KeyTextError, UnlockKey, WrongKey};

/// The name that managers answer to in TLS.
pub const MANAGER_NAME: &str = "swarm-manager";
/// The name that the authority answers to in TLS.
pub const CA_NAME: &str = "swarm-ca";
/// How long a root certificate is valid: 20 years.
const ROOT_VALIDITY: Duration = Duration::from_secs(630_720_000);
/// How far certificates are dated back, for clocks that are slow.
const BACKDATE: Duration = Duration::from_secs(3600);
/// The least validity of a node's certificate.
const MIN_VALIDITY: Duration = Duration::from_secs(3600);
/// How much longer than it could be valid a certificate that was given up is refused.
const GIVEN_UP: Duration = Duration::from_secs(7 * 24 * 3600);
/// The validity of a node's certificate where the cluster does not say: 90 days.
const NODE_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);

/// Why a certificate cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A key or certificate is not usable.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A text is not a certificate.
    #[error("cannot read a certificate: {0}")]
    Read(String),
}

/// Who a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// The node: the common name.
    pub node: NodeId,
    /// What it may do: the organisational unit.
    pub role: NodeRole,
    /// Its cluster: the organisation.
    pub cluster: ClusterId,
}

/// From when to when a certificate is valid, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub from: i64,
    /// Its last second.
    pub until: i64,
}

/// Who signs certificates now.
#[derive(Clone, Copy)]
pub struct Authority<'a> {
    cert_pem: &'a str,
    key_pem: &'a str,
    /// What the authority of before says of this one; empty where there is none.
    cross_signed_pem: &'a str,
}

impl<'a> Authority<'a> {
    /// The authority of `cluster`: the next one, while it takes the place of the present one.
    pub fn of(cluster: &'a Cluster) -> Self {
        match &cluster.root_rotation {
            Some(next) => {
                Self { cert_pem: &next.cert_pem, key_pem: &next.key_pem, cross_signed_pem: &next.cross_signed_pem }
            }
            None => Self::from(&cluster.root_ca),
        }
    }

    /// Its certificate, PEM.
    pub fn cert_pem(&self) -> &'a str {
        self.cert_pem
    }
}

impl<'a> From<&'a RootCa> for Authority<'a> {
    fn from(root: &'a RootCa) -> Self {
        Self { cert_pem: &root.cert_pem, key_pem: &root.key_pem, cross_signed_pem: "" }
    }
}

/// A new authority with new join tokens.
///
/// # Errors
/// [`CaError::Make`] where the system has no randomness.
pub fn new_root(now: Timestamp) -> Result<RootCa, CaError> {
    let (cert_pem, key_pem) = new_authority(now)?;
    let (worker_token, manager_token) = (new_token(&cert_pem), new_token(&cert_pem));
    Ok(RootCa { key_pem, cert_pem, worker_token, manager_token })
}

/// Certificate and key of a new authority, PEM.
fn new_authority(now: Timestamp) -> Result<(String, String), CaError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&[(DnType::CommonName, CA_NAME.to_owned())]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, ROOT_VALIDITY);
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// A certificate for `subject` with the public key of `key`, valid for about `validity` from `now`, and what nodes need
/// beside it that trust only the root of before. PEM.
///
/// # Errors
/// [`CaError::Make`] where the authority cannot sign.
pub fn issue<'a>(
    authority: impl Into<Authority<'a>>,
    subject: &Subject,
    key: &impl PublicKeyData,
    validity: Nanos,
    now: Timestamp,
) -> Result<String, CaError> {
    let authority = authority.into();
    let issuer = Issuer::from_ca_cert_pem(authority.cert_pem, KeyPair::from_pem(authority.key_pem)?)?;
    let unit = unit(subject.role);
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&[
        (DnType::OrganizationName, subject.cluster.to_string()),
        (DnType::OrganizationalUnitName, unit.to_owned()),
        (DnType::CommonName, subject.node.to_string()),
    ]);
    let mut names = vec![unit.to_owned(), subject.node.to_string()];
    if subject.role == NodeRole::Manager {
        names.push(CA_NAME.to_owned());
    }
    params.subject_alt_names =
        names.into_iter().map(|n| Ok(SanType::DnsName(n.try_into()?))).collect::<Result<_, rcgen::Error>>()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, node_validity(validity));
    Ok(params.signed_by(key, &issuer)?.pem() + authority.cross_signed_pem)
}

/// `cluster` with the certificate of `node` given up: it is refused for as long as it may be valid. Those that have ended
/// since are forgotten.
pub fn without(cluster: &Cluster, node: NodeId, now: Timestamp) -> Cluster {
    let validity = node_validity(cluster.spec.ca_config.node_cert_expiry) + GIVEN_UP;
    let mut after = cluster.clone();
    after.blacklist.retain(|_, until| *until > now);
    after.blacklist.insert(node, now.checked_add(validity).unwrap_or(Timestamp::MAX));
    after
}

/// What is shown of an authority: its certificate, and the issuer's name and public key in base64.
///
/// # Errors
/// [`CaError::Read`] where `root_pem` is not a certificate.
pub fn tls_info(root_pem: &str) -> Result<TlsInfo, CaError> {
    let der = first_der(root_pem)?;
    let cert = parse(&der)?;
    Ok(TlsInfo {
        trust_root: root_pem.to_owned(),
        cert_issuer_subject: BASE64.encode(cert.subject().as_raw()),
        cert_issuer_public_key: BASE64.encode(cert.public_key().raw),
    })
}

/// When the first certificate in `pem` is valid.
///
/// # Errors
/// [`CaError::Read`] where there is none.
pub fn validity(pem: &str) -> Result<Validity, CaError> {
    let der = first_der(pem)?;
    let cert = parse(&der)?;
    let validity = cert.validity();
    Ok(Validity { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() })
}

/// The public key of the first certificate in `pem`, DER.
///
/// # Errors
/// [`CaError::Read`] where there is none.
pub fn public_key(pem: &str) -> Result<Vec<u8>, CaError> {
    let der = first_der(pem)?;
    Ok(parse(&der)?.public_key().raw.to_vec())
}

/// The DER form of the first certificate in `pem`.
///
/// # Errors
/// [`CaError::Read`] where there is none.
pub fn first_der(pem: &str) -> Result<Vec<u8>, CaError> {
    match Pem::iter_from_buffer(pem.as_bytes()).next() {
        Some(Ok(pem)) if pem.label == "CERTIFICATE" => Ok(pem.contents),
        Some(Ok(pem)) => Err(CaError::Read(format!("it holds a {}", pem.label))),
        Some(Err(error)) => Err(CaError::Read(error.to_string())),
        None => Err(CaError::Read("it is empty".to_owned())),
    }
}

/// The certificate in `der`.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CaError> {
    X509Certificate::from_der(der).map(|(_, cert)| cert).map_err(|e| CaError::Read(e.to_string()))
}

/// The organisational unit that says a role.
pub(crate) fn unit(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Manager => MANAGER_NAME,
        NodeRole::Worker => "swarm-worker",
    }
}

fn name(parts: &[(DnType, String)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in parts {
        name.push(kind.clone(), value.as_str());
    }
    name
}

fn node_validity(wanted: Nanos) -> Duration {
    match u64::try_from(wanted) {
        Ok(0) | Err(_) => NODE_VALIDITY,
        Ok(nanos) => Duration::from_nanos(nanos).max(MIN_VALIDITY),
    }
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, validity: Duration) {
    let since = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    let now = rcgen::date_time_ymd(1970, 1, 1) + since;
    params.not_before = now - BACKDATE;
    params.not_after = now + validity;
    params.serial_number = Some(SerialNumber::from_slice(&rand::random::<[u8; 16]>()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RandomIds;

    fn now() -> Timestamp {
        "2026-03-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_node_certificate_says_node_role_and_cluster_and_is_signed_by_the_root() {
        let root = new_root(now()).unwrap();
        let ids = &mut RandomIds;
        let subject = Subject { node: NodeId::new(ids), role: NodeRole::Manager, cluster: ClusterId::new(ids) };
        let key = KeyPair::generate().unwrap();
        let pem = issue(&root, &subject, &key, 0, now()).unwrap();
        let (der, root_der) = (first_der(&pem).unwrap(), first_der(&root.cert_pem).unwrap());
        let (cert, root) = (parse(&der).unwrap(), parse(&root_der).unwrap());
        cert.verify_signature(Some(root.public_key())).unwrap();
        let text = cert.subject().to_string();
        for part in [format!("CN={}", subject.node), "OU=swarm-manager".into(), format!("O={}", subject.cluster)] {
            assert!(text.contains(&part), "{text}");
        }
        let names = cert.subject_alternative_name().unwrap().unwrap().value.general_names.len();
        assert_eq!(names, 3, "unit, node and swarm-ca");
        assert_eq!(validity(&pem).unwrap().until - now().as_second(), 90 * 24 * 3600);
        assert_eq!(now().as_second() - validity(&pem).unwrap().from, 3600);
    }

    #[test]
    fn the_root_is_valid_for_twenty_years_and_shows_its_name_and_key() {
        let root = new_root(now()).unwrap();
        assert_eq!(validity(&root.cert_pem).unwrap().until - now().as_second(), 630_720_000);
        let info = tls_info(&root.cert_pem).unwrap();
        assert_eq!(info.trust_root, root.cert_pem);
        assert!(!info.cert_issuer_subject.is_empty() && !info.cert_issuer_public_key.is_empty());
        assert!(tls_info(&root.key_pem).is_err(), "a key is not a certificate");
    }

    #[test]
    fn a_validity_below_an_hour_is_an_hour() {
        assert_eq!(node_validity(1), MIN_VALIDITY);
        assert_eq!(node_validity(-1), NODE_VALIDITY);
        assert_eq!(node_validity(7200 * 1_000_000_000), Duration::from_secs(7200));
    }
}
