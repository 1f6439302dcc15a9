//! The `/v1.NN` prefix: which versions are served, and how it is taken off a request's path.

use std::fmt;

use http::Uri;
use http::uri::PathAndQuery;

use crate::error::ApiError;

/// A version of the Docker Engine API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub u16, pub u16);

/// The oldest version that is served: the floor of Docker's own current engine.
pub const MIN: ApiVersion = ApiVersion(1, 44);
/// The newest version that is served: what the body definitions describe.
pub const MAX: ApiVersion = ApiVersion(1, 53);

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Takes the version off `uri`; without one, the newest is meant.
///
/// # Errors
/// 400 with Docker's text when the version is older or newer than what is served.
pub fn split(uri: &Uri) -> Result<(ApiVersion, Uri), ApiError> {
    let path = uri.path();
    let Some((version, rest)) = parse(path) else { return Ok((MAX, uri.clone())) };
    check(version)?;
    let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let rest = if rest.is_empty() { "/" } else { rest };
    let shorter: PathAndQuery =
        format!("{rest}{query}").parse().map_err(|_| ApiError::bad_request("malformed request path"))?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(shorter);
    let uri = Uri::from_parts(parts).map_err(|_| ApiError::bad_request("malformed request path"))?;
    Ok((version, uri))
}

fn parse(path: &str) -> Option<(ApiVersion, &str)> {
    let rest = path.strip_prefix("/v")?;
    let (version, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (major, minor) = version.split_once('.')?;
    Some((ApiVersion(major.parse().ok()?, minor.parse().ok()?), rest))
}

fn check(version: ApiVersion) -> Result<(), ApiError> {
    if version < MIN {
        return Err(ApiError::bad_request(format!(
            "client version {version} is too old. Minimum supported API version is {MIN}, please upgrade your client to a newer version"
        )));
    }
    if version > MAX {
        return Err(ApiError::bad_request(format!(
            "client version {version} is too new. Maximum supported API version is {MAX}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_goes_and_the_query_stays() {
        let (version, uri) = split(&"/v1.45/containers/json?all=1".parse().unwrap()).unwrap();
        assert_eq!((version, uri.to_string().as_str()), (ApiVersion(1, 45), "/containers/json?all=1"));
        let (version, uri) = split(&"/_ping".parse().unwrap()).unwrap();
        assert_eq!((version, uri.to_string().as_str()), (MAX, "/_ping"));
    }

    #[test]
    fn a_path_that_only_looks_like_a_version_is_left_alone() {
        assert_eq!(split(&"/volumes/x".parse().unwrap()).unwrap().1.to_string(), "/volumes/x");
        assert_eq!(split(&"/v1.x/info".parse().unwrap()).unwrap().1.to_string(), "/v1.x/info");
    }

    #[test]
    fn versions_outside_the_range_are_refused_by_name() {
        for (path, text) in [("/v1.10/info", "1.10 is too old"), ("/v1.99/info", "1.99 is too new")] {
            let error = split(&path.parse().unwrap()).unwrap_err();
            assert_eq!(error.status, 400);
            assert!(error.message.contains(text), "{}", error.message);
        }
    }
}
