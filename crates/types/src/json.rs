//! Reading JSON as Docker's clients write it: a `null` field means the field was not given.

use std::borrow::Cow;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error};
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

/// Reads one of a closed set of texts, in any case.
///
/// # Errors
/// `refusal` of the text, where it is none of `names`: clients see Docker's own words, not the parser's.
pub(crate) fn read_one_of<'de, D: Deserializer<'de>, T: Copy>(
    d: D,
    names: &[(&str, T)],
    refusal: impl FnOnce(&str) -> String,
) -> Result<T, D::Error> {
    let text = Cow::<'de, str>::deserialize(d)?;
    let found = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(&text));
    found.map(|(_, value)| *value).ok_or_else(|| Error::custom(refusal(&text)))
}

/// Implements `Deserialize` with [`read_one_of`].
macro_rules! one_of {
    ($kind:ty, $refusal:literal, $($name:literal => $value:ident),+) => {
        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                $crate::json::read_one_of(d, &[$(($name, Self::$value)),+], |text| format!($refusal, text))
            }
        }
    };
}
pub(crate) use one_of;
