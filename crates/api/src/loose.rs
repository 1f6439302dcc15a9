//! What Docker takes in the body of a container and the body definitions do not: a command as one text, and closed sets of
//! words whose refusal has a text of its own.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Answer, ApiError};

const RESTART_POLICIES: [&str; 5] = ["", "no", "always", "on-failure", "unless-stopped"];
const MOUNT_TYPES: [&str; 6] = ["bind", "cluster", "image", "npipe", "tmpfs", "volume"];

/// Reads `body` as Docker would.
///
/// # Errors
/// 400 in Docker's words.
pub fn read<T: DeserializeOwned>(mut body: Value) -> Answer<T> {
    for field in ["Cmd", "Entrypoint", "Shell"] {
        if let Some(text @ Value::String(_)) = body.get_mut(field) {
            *text = Value::Array(vec![text.take()]);
        }
    }
    check_words(&body["HostConfig"])?;
    serde_json::from_value(body).map_err(|e| ApiError::bad_request(crate::body::explained(&e)))
}

fn check_words(host: &Value) -> Answer<()> {
    if let Some(name) = host["RestartPolicy"]["Name"].as_str()
        && !RESTART_POLICIES.contains(&name)
    {
        return Err(ApiError::bad_request(format!(
            "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )));
    }
    for mount in host["Mounts"].as_array().into_iter().flatten() {
        let kind = mount["Type"].as_str().unwrap_or_default();
        if !MOUNT_TYPES.contains(&kind) {
            return Err(ApiError::bad_request(format!("invalid mount config for type {kind:?}: mount type unknown")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bollard_stubs::models::ContainerCreateBody;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_may_be_one_text() {
        let body: ContainerCreateBody = read(json!({ "Cmd": "true", "Entrypoint": ["sh", "-c"] })).unwrap();
        assert_eq!((body.cmd, body.entrypoint), (Some(vec!["true".into()]), Some(vec!["sh".into(), "-c".into()])));
    }

    #[test]
    fn unknown_words_are_refused_in_dockers_words() {
        for (body, text) in [
            (json!({ "HostConfig": { "RestartPolicy": { "Name": "sometimes" } } }), "unknown policy 'sometimes'"),
            (json!({ "HostConfig": { "Mounts": [{ "Type": "x" }] } }), "type \"x\": mount type unknown"),
        ] {
            let error = read::<ContainerCreateBody>(body).unwrap_err();
            assert!(error.status == 400 && error.message.contains(text), "{}", error.message);
        }
    }
}
