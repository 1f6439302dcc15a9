//! A new root certificate without a stop (swarm-semantics 9). The old authority vouches for the new one; nodes change over to
//! certificates of the new one, some at a time; once all have, the new root takes the old one's place, and with it come new
//! join tokens.
//!
//! Every node can talk to every other at any moment: certificates of the new authority carry what the old one says of it.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use shoal_types::object::{RootCa, RootRotation};
use shoal_types::spec::CaConfig;
use shoal_types::{Change, Cluster, Node, Object, Refusal, RefusalKind, Timestamp, View};
use x509_parser::prelude::Pem;

use super::{CaError, ROOT_VALIDITY, first_der, new_authority, new_token, parse, public_key, set_validity, tls_info};

/// How many nodes are told at a time to change over.
pub const BATCH: usize = 30;
/// A root certificate must be valid for that long. Seconds.
const LEAST_VALIDITY: i64 = 365 * 24 * 3600;

/// What the settings of `ca` mean for `cluster`: another root to change to, none any more, or nothing (`None`).
///
/// # Errors
/// Docker's words for what is wrong with a certificate that is given.
pub fn wanted(cluster: &Cluster, ca: &CaConfig, now: Timestamp) -> Result<Option<Option<Arc<RootRotation>>>, Refusal> {
    if ca.signing_ca_cert.is_empty() {
        if !ca.signing_ca_key.is_empty() {
            let text = "if a signing CA key is provided, the signing CA cert must also be provided";
            return Err(Refusal::invalid(text));
        }
        if ca.force_rotate == cluster.spec.ca_config.force_rotate {
            return Ok(None);
        }
        let (cert_pem, key_pem) = new_authority(now).map_err(internal)?;
        return rotation(&cluster.root_ca, cert_pem, key_pem, now).map(|next| Some(Some(next)));
    }
    let same = |cert: &str| first_der(cert).ok() == first_der(&ca.signing_ca_cert).ok();
    if same(&cluster.root_ca.cert_pem) {
        // Back to where it was.
        return Ok(cluster.root_rotation.is_some().then_some(None));
    }
    if cluster.root_rotation.as_ref().is_some_and(|next| same(&next.cert_pem)) {
        return Ok(None);
    }
    check(&cluster.root_ca, ca, now)?;
    rotation(&cluster.root_ca, ca.signing_ca_cert.clone(), ca.signing_ca_key.clone(), now).map(|next| Some(Some(next)))
}

fn check(root: &RootCa, ca: &CaConfig, now: Timestamp) -> Result<(), Refusal> {
    if ca.signing_ca_key.is_empty() {
        let text =
            "there must be at least one valid, reachable external CA corresponding to the desired CA certificate";
        return Err(Refusal::invalid(text));
    }
    if Pem::iter_from_buffer(ca.signing_ca_cert.as_bytes()).count() > 1 {
        return Err(Refusal::invalid("the desired CA certificate cannot contain multiple certificates"));
    }
    let unreadable = || Refusal::invalid("could not parse the desired CA certificate");
    let der = first_der(&ca.signing_ca_cert).map_err(|_| unreadable())?;
    let cert = parse(&der).map_err(|_| unreadable())?;
    if cert.validity().not_after.timestamp() < now.as_second() + LEAST_VALIDITY {
        return Err(Refusal::invalid("CA certificate expires too soon"));
    }
    if !cert.is_ca() || cert.verify_signature(None).is_err() {
        return Err(Refusal::invalid("the desired CA certificate is not a self-signed root certificate"));
    }
    if public_key(&root.cert_pem).is_ok_and(|key| key == cert.public_key().raw) {
        return Err(Refusal::invalid("Cannot update to a cert with an identical key"));
    }
    if !is_key_of(&ca.signing_ca_key, cert.public_key().raw) {
        return Err(Refusal::invalid("certificate key mismatch"));
    }
    Ok(())
}

fn is_key_of(key_pem: &str, public: &[u8]) -> bool {
    use rcgen::PublicKeyData;
    KeyPair::from_pem(key_pem).is_ok_and(|key| key.subject_public_key_info() == public)
}

fn rotation(root: &RootCa, cert_pem: String, key_pem: String, now: Timestamp) -> Result<Arc<RootRotation>, Refusal> {
    let cross_signed_pem = cross_sign(root, &cert_pem, &key_pem, now).map_err(internal)?;
    Ok(Arc::new(RootRotation { cert_pem, key_pem, cross_signed_pem }))
}

/// A certificate of `root` for the authority of `cert_pem`: the same name and key. PEM.
fn cross_sign(root: &RootCa, cert_pem: &str, key_pem: &str, now: Timestamp) -> Result<String, CaError> {
    let der = first_der(cert_pem)?;
    let next = parse(&der)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name_of(&next)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, ROOT_VALIDITY);
    let issuer = Issuer::from_ca_cert_pem(&root.cert_pem, KeyPair::from_pem(&root.key_pem)?)?;
    let pem = params.signed_by(&KeyPair::from_pem(key_pem)?, &issuer)?.pem();
    // Names are compared byte by byte when a chain is verified.
    let der = first_der(&pem)?;
    if parse(&der)?.subject().as_raw() != next.subject().as_raw() {
        return Err(CaError::Read("its name is written in a way that cannot be carried over".to_owned()));
    }
    Ok(pem)
}

fn name_of(cert: &x509_parser::certificate::X509Certificate<'_>) -> Result<DistinguishedName, CaError> {
    use x509_parser::der_parser::asn1_rs::Tag;
    let mut name = DistinguishedName::new();
    for attribute in cert.subject().iter_attributes() {
        let oid: Vec<u64> = attribute.attr_type().iter().into_iter().flatten().collect();
        let text = attribute.as_str().map_err(|e| CaError::Read(e.to_string()))?;
        let value = match attribute.attr_value().tag() {
            Tag::PrintableString => DnValue::PrintableString(text.try_into()?),
            _ => DnValue::Utf8String(text.to_owned()),
        };
        name.push(DnType::from_oid(&oid), value);
    }
    Ok(name)
}

/// The next step of the rotation that is under way: nodes that are told to change over, or the end of it. Empty where there
/// is nothing to do yet.
pub fn plan_step(view: &impl View) -> Vec<Change> {
    let Some((cluster, next)) = view.cluster().and_then(|c| Some((c, c.root_rotation.as_ref()?))) else {
        return Vec::new();
    };
    let Ok(issuer) = tls_info(&next.cert_pem).map(|tls| tls.cert_issuer_public_key) else { return Vec::new() };
    let behind: Vec<&Arc<Node>> = view.nodes().filter(|n| !has_changed_over(n, &issuer)).collect();
    if behind.is_empty() {
        return vec![Change::Put(Object::Cluster(Arc::new(finished(cluster, next))))];
    }
    let told = behind.iter().filter(|n| n.wanted_issuer.as_ref() == Some(&issuer)).count();
    let rest = behind.iter().filter(|n| n.wanted_issuer.as_ref() != Some(&issuer));
    let change = |n: &&Arc<Node>| {
        let node = Node { wanted_issuer: Some(issuer.clone()), ..n.as_ref().clone() };
        Change::Put(Object::Node(Arc::new(node)))
    };
    rest.take(BATCH.saturating_sub(told)).map(change).collect()
}

/// A node that was never there has nothing to change.
fn has_changed_over(node: &Node, issuer: &str) -> bool {
    node.description.as_ref().is_none_or(|d| d.tls_info.cert_issuer_public_key == issuer)
}

fn finished(cluster: &Cluster, next: &RootRotation) -> Cluster {
    let (worker_token, manager_token) = (new_token(&next.cert_pem), new_token(&next.cert_pem));
    let (cert_pem, key_pem) = (next.cert_pem.clone(), next.key_pem.clone());
    Cluster {
        root_ca: RootCa { cert_pem, key_pem, worker_token, manager_token },
        root_rotation: None,
        ..cluster.clone()
    }
}

fn internal(error: CaError) -> Refusal {
    Refusal::new(RefusalKind::Internal, error.to_string())
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use shoal_types::spec::{ClusterSpec, NodeRole};
    use shoal_types::{ClusterId, Nanos, NodeId};

    use super::super::{Authority, Subject, issue};
    use super::*;
    use crate::ids::RandomIds;
    use crate::testing::Fixture;

    async fn cluster() -> Arc<Cluster> {
        Fixture::new(ClusterSpec::initial()).await.control.get_cluster().unwrap()
    }

    fn given(cert_pem: &str, key_pem: &str) -> CaConfig {
        let (signing_ca_cert, signing_ca_key) = (cert_pem.to_owned(), key_pem.to_owned());
        CaConfig { signing_ca_cert, signing_ca_key, ..CaConfig::default() }
    }

    #[tokio::test]
    async fn certificates_that_cannot_be_changed_to_are_refused_in_dockers_words() {
        let (cluster, now) = (cluster().await, Timestamp::now());
        let (cert, key) = new_authority(now).unwrap();
        let (other, old) =
            (new_authority(now).unwrap(), new_authority("2007-01-01T00:00:00Z".parse().unwrap()).unwrap());
        let refused = |ca: CaConfig| wanted(&cluster, &ca, now).unwrap_err().message;
        let text = "if a signing CA key is provided, the signing CA cert must also be provided";
        assert_eq!(refused(given("", &key)), text);
        assert!(refused(given(&cert, "")).starts_with("there must be at least one valid, reachable external CA"));
        assert_eq!(refused(given("x", &key)), "could not parse the desired CA certificate");
        let text = "the desired CA certificate cannot contain multiple certificates";
        assert_eq!(refused(given(&(cert.clone() + &other.0), &key)), text);
        assert_eq!(refused(given(&old.0, &old.1)), "CA certificate expires too soon");
        assert_eq!(refused(given(&cert, &other.1)), "certificate key mismatch");
        assert_eq!(wanted(&cluster, &CaConfig::default(), now), Ok(None));
        let same = given(&cluster.root_ca.cert_pem, &cluster.root_ca.key_pem);
        assert_eq!(wanted(&cluster, &same, now), Ok(None), "it is the present one");
        let next = wanted(&cluster, &given(&cert, &key), now).unwrap().unwrap().unwrap();
        assert_eq!((&next.cert_pem, &next.key_pem), (&cert, &key));
    }

    #[tokio::test]
    async fn what_the_next_authority_signs_is_good_for_those_who_trust_either_root() {
        let (mut cluster, now) = (cluster().await.as_ref().clone(), Timestamp::now());
        let forced = CaConfig { force_rotate: 1, ..CaConfig::default() };
        cluster.root_rotation = wanted(&cluster, &forced, now).unwrap().unwrap();
        let subject = Subject {
            node: NodeId::new(&mut RandomIds),
            role: NodeRole::Manager,
            cluster: ClusterId::new(&mut RandomIds),
        };
        let key = KeyPair::generate().unwrap();
        let pem = issue(Authority::of(&cluster), &subject, &key, Nanos::default(), now).unwrap();
        let chain: Vec<CertificateDer<'_>> =
            Pem::iter_from_buffer(pem.as_bytes()).map(|p| p.unwrap().contents.into()).collect();
        assert_eq!(chain.len(), 2);
        let next = cluster.root_rotation.as_ref().unwrap().cert_pem.clone();
        for (root, is_good) in
            [(&cluster.root_ca.cert_pem, true), (&next, true), (&new_authority(now).unwrap().0, false)]
        {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(first_der(root).unwrap().into()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier =
                rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
            let name = ServerName::try_from(super::super::MANAGER_NAME).unwrap();
            use rustls::client::danger::ServerCertVerifier;
            let verified = verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now());
            assert_eq!(verified.is_ok(), is_good, "{verified:?}");
        }
    }
}
