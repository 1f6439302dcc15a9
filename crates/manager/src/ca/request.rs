//! What a node asks the authority with: a signing request, and what shows who it is.

use rcgen::{CertificateParams, CertificateSigningRequestParams, KeyPair, PublicKey, PublicKeyData};
use sha2::{Digest, Sha256};
use shoal_types::{ClusterId, IdSource, NodeId};

use super::{CaError, first_der, parse};
use crate::peer;

/// A signing request whose signature has been verified: whoever sent it first has the key.
#[derive(Debug, Clone)]
pub struct Request {
    key: PublicKey,
}

/// Why a request is not one.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The text is no signing request, or its signature is wrong.
    #[error("cannot read the signing request: {0}")]
    Csr(#[from] rcgen::Error),
    /// The old certificate cannot be read, or is not a node's.
    #[error("cannot read the old certificate: {0}")]
    Old(String),
    /// The old certificate is from another authority or cluster, or for another key.
    #[error("the old certificate is not good: {0}")]
    Stranger(&'static str),
}

/// An identifier that is made from a key: a join that is tried again is the same join.
struct OfKey([u8; 32]);

impl IdSource for OfKey {
    fn random(&mut self) -> [u8; 17] {
        let mut bytes = [0; 17];
        bytes.copy_from_slice(&self.0[..17]);
        bytes
    }
}

impl Request {
    /// Writes a signing request for `key` (PKCS#10, PEM).
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn write(key: &KeyPair) -> Result<String, CaError> {
        Ok(CertificateParams::default().serialize_request(key)?.pem()?)
    }

    /// Reads a signing request. Only its key counts: who the certificate is for is decided here.
    ///
    /// # Errors
    /// [`RequestError::Csr`].
    pub fn read(pem: &str) -> Result<Self, RequestError> {
        Ok(Self { key: CertificateSigningRequestParams::from_pem(pem)?.public_key })
    }

    /// The key that the certificate is for.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The identifier of a node that joins with this key.
    pub fn node(&self) -> NodeId {
        NodeId::new(&mut OfKey(Sha256::digest(self.key.subject_public_key_info()).into()))
    }

    /// The node that `old` was for, if one of `roots` (PEM) issued it for `cluster` and for this very key. That it has
    /// expired does not matter: the key is the identity.
    ///
    /// # Errors
    /// [`RequestError::Old`], [`RequestError::Stranger`].
    pub fn vouched(&self, old: &str, cluster: ClusterId, roots: &[&str]) -> Result<NodeId, RequestError> {
        let unreadable = |e: &dyn std::fmt::Display| RequestError::Old(e.to_string());
        let der = first_der(old).map_err(|e| unreadable(&e))?;
        let cert = parse(&der).map_err(|e| unreadable(&e))?;
        let is_ours = roots.iter().any(|root| {
            let root = first_der(root);
            root.as_deref().ok().and_then(|root| parse(root).ok()).is_some_and(|root| {
                cert.issuer() == root.subject() && cert.verify_signature(Some(root.public_key())).is_ok()
            })
        });
        if !is_ours {
            return Err(RequestError::Stranger("another authority issued it"));
        }
        if cert.public_key().raw != self.key.subject_public_key_info() {
            return Err(RequestError::Stranger("the request is signed by another key"));
        }
        let subject = peer::subject(&der).map_err(|e| unreadable(&e))?;
        if subject.cluster != cluster {
            return Err(RequestError::Stranger("it is for another cluster"));
        }
        Ok(subject.node)
    }
}

#[cfg(test)]
mod tests {
    use shoal_types::spec::NodeRole;

    use super::super::{Subject, issue, new_root};
    use super::*;
    use crate::ids::RandomIds;

    #[test]
    fn the_same_key_is_the_same_node_and_only_its_holder_can_ask() {
        let key = KeyPair::generate().unwrap();
        let (one, two) = (Request::write(&key).unwrap(), Request::write(&key).unwrap());
        assert_eq!(Request::read(&one).unwrap().node(), Request::read(&two).unwrap().node());
        let other = Request::read(&Request::write(&KeyPair::generate().unwrap()).unwrap()).unwrap();
        assert_ne!(other.node(), Request::read(&one).unwrap().node());
        assert!(Request::read("nonsense").is_err());
    }

    #[test]
    fn an_old_certificate_counts_for_its_own_key_authority_and_cluster_only() {
        let long_ago = "2020-01-01T00:00:00Z".parse().unwrap();
        let root = new_root(long_ago).unwrap();
        let (node, cluster) = (NodeId::new(&mut RandomIds), ClusterId::new(&mut RandomIds));
        let key = KeyPair::generate().unwrap();
        let subject = Subject { node, cluster, role: NodeRole::Worker };
        let old = issue(&root, &subject, &key, 0, long_ago).unwrap();
        let request = Request::read(&Request::write(&key).unwrap()).unwrap();
        let other_root = new_root(long_ago).unwrap();
        let roots = [other_root.cert_pem.as_str(), root.cert_pem.as_str()];
        assert_eq!(request.vouched(&old, cluster, &roots).unwrap(), node);

        assert!(request.vouched(&old, cluster, &roots[..1]).is_err(), "another authority");
        let elsewhere = ClusterId::new(&mut RandomIds);
        assert!(request.vouched(&old, elsewhere, &roots).is_err(), "another cluster");
        let thief = Request::read(&Request::write(&KeyPair::generate().unwrap()).unwrap()).unwrap();
        assert!(thief.vouched(&old, cluster, &roots).is_err(), "another key");
        assert!(request.vouched(&root.cert_pem, cluster, &roots).is_err(), "not a node's");
    }
}
