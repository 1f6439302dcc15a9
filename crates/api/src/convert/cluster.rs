//! The cluster.

use serde::Serialize;
use serde_json::{Value, json};
use shoal_types::object::TlsInfo;
use shoal_types::spec::ClusterSpec;
use shoal_types::{Cluster, ClusterId};

use super::MetaBody;

/// The cluster as clients see it: nothing of its keys.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Its authority.
    pub tls: &'a TlsInfo,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ClusterBody<'a> {
    #[serde(rename = "ID")]
    id: ClusterId,
    #[serde(flatten)]
    meta: MetaBody,
    spec: &'a ClusterSpec,
    #[serde(rename = "TLSInfo")]
    tls_info: &'a TlsInfo,
    root_rotation_in_progress: bool,
    default_addr_pool: Vec<&'a str>,
    subnet_size: u32,
    data_path_port: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    join_tokens: Option<Value>,
}

/// The cluster for `GET /swarm` (with its join tokens) and `GET /info` (without).
pub fn body(shown: Shown<'_>, tokens: bool) -> Value {
    let Shown { cluster, tls } = shown;
    let pools: Vec<&str> = cluster.default_addr_pool.iter().map(String::as_str).collect();
    let body = ClusterBody {
        id: cluster.id,
        meta: cluster.meta.into(),
        spec: &cluster.spec,
        tls_info: tls,
        root_rotation_in_progress: cluster.root_rotation.is_some(),
        default_addr_pool: if pools.is_empty() { vec!["10.0.0.0/8"] } else { pools },
        subnet_size: if cluster.subnet_size == 0 { 24 } else { cluster.subnet_size },
        data_path_port: if cluster.data_path_port == 0 { 4789 } else { cluster.data_path_port },
        join_tokens: tokens
            .then(|| json!({ "Worker": cluster.root_ca.worker_token, "Manager": cluster.root_ca.manager_token })),
    };
    serde_json::to_value(body).expect("plain values always serialise")
}
