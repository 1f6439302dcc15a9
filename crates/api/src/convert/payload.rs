//! Secrets and configs. The content of a secret is never shown.

use serde::Serialize;
use shoal_types::payload::{Payload, PayloadClass, PayloadKind};
use shoal_types::spec::{Data, PayloadSpec};

use super::MetaBody;

/// A secret or config as clients see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PayloadBody {
    #[serde(rename = "ID")]
    id: String,
    #[serde(flatten)]
    meta: MetaBody,
    spec: PayloadSpec,
}

/// The body for `payload`.
pub fn body<K: PayloadKind>(payload: &Payload<K>) -> PayloadBody {
    let mut spec = payload.spec.as_ref().clone();
    if K::CLASS == PayloadClass::Secret {
        spec.data = Data::default();
    }
    PayloadBody { id: payload.id.to_string(), meta: payload.meta.into(), spec }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shoal_types::{Config, Meta, Secret};

    use super::*;

    #[test]
    fn a_config_shows_its_content_and_a_secret_does_not() {
        let spec = Arc::new(PayloadSpec { name: "a".into(), data: b"x".to_vec().into(), ..PayloadSpec::default() });
        let id = "0".repeat(25);
        let secret = Secret { id: id.parse().unwrap(), meta: Meta::default(), spec: spec.clone() };
        let config = Config { id: id.parse().unwrap(), meta: Meta::default(), spec };
        let shown = |body: PayloadBody| serde_json::to_value(body).unwrap()["Spec"].clone();
        assert_eq!(shown(body(&secret)), serde_json::json!({ "Name": "a", "Labels": {} }));
        assert_eq!(shown(body(&config)), serde_json::json!({ "Name": "a", "Labels": {}, "Data": "eA==" }));
    }
}
