//! Reading JSON as Docker's clients write it: a `null` field means the field was not given.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Parses `body`, with every `null` member of an object left out first, so that optional and plain fields
/// alike take their zero value (Go's decoder does the same).
pub fn from_slice<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    let mut value: Value = serde_json::from_slice(body)?;
    drop_nulls(&mut value);
    serde_json::from_value(value)
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, v| !v.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// For `skip_serializing_if`: whether a value is its type's zero.
pub fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
