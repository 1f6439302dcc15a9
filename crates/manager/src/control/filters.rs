//! Filters of lists (swarm-semantics 13.1, 19.2): several values of one filter are alternatives, several filters must
//! all hold, labels must all hold.

use std::collections::BTreeMap;

use shoal_types::spec::Labels;
use shoal_types::{Refusal, RefusalKind};

/// Filters as a client gives them: names to values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// The filters in `given`.
    pub fn new(given: BTreeMap<String, Vec<String>>) -> Self {
        Self(given)
    }

    /// Refuses filters that are not among `known`.
    pub(super) fn accept(&self, known: &[&str]) -> Result<(), Refusal> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Refusal::engine(RefusalKind::InvalidArgument, format!("invalid filter '{name}'"))),
            None => Ok(()),
        }
    }

    /// The filters of these names alone, in lower case.
    pub(super) fn lower_case(&self, names: &[&str]) -> Self {
        let named = self.0.iter().filter(|(name, _)| names.contains(&name.as_str()));
        Self(named.map(|(name, values)| (name.clone(), values.iter().map(|v| v.to_lowercase()).collect())).collect())
    }

    /// The values of a filter; empty where it is not given.
    pub(super) fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether `text` starts with one of the values.
    pub(super) fn prefix(&self, name: &str, text: &str) -> bool {
        let values = self.values(name);
        values.is_empty() || values.iter().any(|v| text.starts_with(v.as_str()))
    }

    /// Whether `text` is one of the values.
    pub(super) fn exact(&self, name: &str, text: &str) -> bool {
        let values = self.values(name);
        values.is_empty() || values.iter().any(|v| v == text)
    }

    /// Whether `labels` have all keys, and the values where the filter names them. The last one of a key counts.
    pub(super) fn labels(&self, name: &str, labels: &Labels) -> bool {
        let pairs = self.values(name).iter().map(|v| v.split_once('=').unwrap_or((v, "")));
        let wanted: BTreeMap<&str, &str> = pairs.collect();
        wanted.iter().all(|(key, value)| labels.get(*key).is_some_and(|have| value.is_empty() || have == value))
    }

    /// The values, read by `parse`; one that cannot be read is refused as `Invalid <what> filter: '<value>'`. Empty values
    /// are passed over.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        what: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, Refusal> {
        let read = |value: &String| {
            parse(value)
                .ok_or_else(|| Refusal::engine(RefusalKind::Unknown, format!("Invalid {what} filter: '{value}'")))
        };
        self.values(name).iter().filter(|v| !v.is_empty()).map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(name: &str, values: &[&str]) -> Filters {
        Filters::new([(name.to_owned(), values.iter().map(ToString::to_string).collect())].into())
    }

    #[test]
    fn unknown_filters_are_refused_by_name() {
        let refusal = filters("foo", &["x"]).accept(&["id"]).unwrap_err();
        assert_eq!((refusal.to_string(), refusal.kind.http_status()), ("invalid filter 'foo'".to_owned(), 400));
    }

    #[test]
    fn labels_must_all_hold_and_the_last_value_of_a_key_counts() {
        let labels: Labels = [("a", "1"), ("b", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert!(filters("label", &["a", "b"]).labels("label", &labels));
        assert!(filters("label", &["a=2", "a=1"]).labels("label", &labels));
        assert!(filters("label", &["a="]).labels("label", &labels));
        assert!(!filters("label", &["a", "c"]).labels("label", &labels));
        assert!(!filters("label", &["a=1", "a=2"]).labels("label", &labels));
    }

    #[test]
    fn one_of_several_values_is_enough() {
        assert!(filters("id", &["x", "ab"]).prefix("id", "abc"));
        assert!(!filters("id", &["b"]).prefix("id", "abc"));
        assert!(filters("mode", &["global"]).prefix("id", "abc"), "a filter that is not given holds");
    }
}
