//! Query parameters as Docker reads them: a parameter that is there may be empty, booleans are lenient, and
//! `filters` is JSON in one of two forms.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde_json::Value;

use crate::error::ApiError;

/// The query of a request.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

/// Filters: names to accepted values.
pub type Filters = BTreeMap<String, Vec<String>>;

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

impl Query {
    /// Takes a query text apart.
    pub fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// The first value of `name`, if it is there and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// Whether `name` is set to anything but empty, `0`, `no`, `false` and `none` (Docker's form semantics).
    pub fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// The same, with another answer where `name` is absent.
    pub fn flag_or(&self, name: &str, absent: bool) -> bool {
        match self.0.iter().find(|(n, _)| n == name) {
            Some((_, v)) => !matches!(v.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none"),
            None => absent,
        }
    }

    /// The value of `name` as a number.
    ///
    /// # Errors
    /// 400 where it is none.
    pub fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| ApiError::bad_request(format!("invalid value for {name}: \"{text}\"")))
    }

    /// The `filters` parameter: `{"name": ["value"]}` or the older `{"name": {"value": true}}`.
    ///
    /// # Errors
    /// 400 `invalid filter` where it is neither.
    pub fn filters(&self) -> Result<Filters, ApiError> {
        let Some(text) = self.get("filters") else { return Ok(Filters::new()) };
        let invalid = || ApiError::bad_request("invalid filter");
        let Ok(Value::Object(members)) = serde_json::from_str::<Value>(text) else { return Err(invalid()) };
        members
            .into_iter()
            .map(|(name, values)| Ok((name, filter_values(values).ok_or_else(invalid)?)))
            .collect::<Result<Filters, ApiError>>()
    }
}

fn filter_values(values: Value) -> Option<Vec<String>> {
    match values {
        Value::Array(items) => items.iter().map(|v| v.as_str().map(str::to_owned)).collect(),
        Value::Object(items) => {
            let all_booleans = items.values().all(Value::is_boolean);
            all_booleans.then(|| items.into_iter().filter(|(_, on)| *on == Value::Bool(true)).map(|(v, _)| v).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(text: &str) -> Result<Filters, ApiError> {
        let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("filters", text).finish();
        Query::parse(&query).filters()
    }

    #[test]
    fn both_forms_of_filters_mean_the_same() {
        let want = Filters::from([("label".into(), vec!["a=b".into()])]);
        assert_eq!(filters(r#"{"label":["a=b"]}"#).unwrap(), want);
        assert_eq!(filters(r#"{"label":{"a=b":true,"c":false}}"#).unwrap(), want);
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for bad in ["x", "[]", r#"{"label":"x"}"#, r#"{"label":[1]}"#, r#"{"label":{"x":1}}"#] {
            assert_eq!(filters(bad).unwrap_err(), ApiError::bad_request("invalid filter"), "{bad}");
        }
    }

    #[test]
    fn booleans_are_lenient() {
        let query = Query::parse("a=1&b=false&c=&d=yes&e=None");
        assert_eq!(["a", "b", "c", "d", "e", "f"].map(|n| query.flag(n)), [true, false, false, true, false, false]);
        assert!(query.flag_or("f", true) && !query.flag_or("b", true));
    }
}
