//! Credentials, challenges, and the tokens that answer them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use reqwest::Method;
use serde::Deserialize;

use super::error::RegistryError;
use super::session::{Session, read_limited};

const MAX_TOKEN_ANSWER: u64 = 1 << 20;
const CLIENT_ID: &str = "docker";

/// Credentials, as in the API's `X-Registry-Auth` header.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RegistryAuth {
    /// For basic authentication, and to get a token.
    pub username: String,
    /// For basic authentication, and to get a token.
    pub password: String,
    /// The registry that they are for. Not interpreted.
    #[serde(rename = "serveraddress")]
    pub server_address: String,
    /// A token that buys access tokens.
    #[serde(rename = "identitytoken")]
    pub identity_token: String,
    /// An access token.
    #[serde(rename = "registrytoken")]
    pub registry_token: String,
}

/// The header as clients write it.
#[derive(Deserialize)]
struct AuthHeader {
    #[serde(flatten)]
    known: RegistryAuth,
    /// `base64(username:password)`, as old clients write it.
    #[serde(default)]
    auth: String,
}

/// One way in which a registry wants to be convinced.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// An error that a challenge carries (RFC 6750), as the registry's error code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ChallengeError {
    pub code: &'static str,
    pub message: String,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl RegistryAuth {
    /// Reads the header's value: JSON in URL-safe base64. An empty value means none.
    pub fn from_header(value: &str) -> Result<Option<Self>, String> {
        if value.is_empty() {
            return Ok(None);
        }
        let padded = format!("{}{}", value, "=".repeat((4 - value.len() % 4) % 4));
        let json = URL_SAFE.decode(&padded).or_else(|_| STANDARD.decode(&padded));
        let json =
            json.map_err(|_| "invalid X-Registry-Auth header: must be a valid base64url-encoded string".to_owned())?;
        let header: AuthHeader =
            serde_json::from_slice(&json).map_err(|error| format!("invalid X-Registry-Auth header: {error}"))?;
        let mut auth = header.known;
        let pair = STANDARD.decode(&header.auth).ok().and_then(|pair| String::from_utf8(pair).ok());
        if let (true, Some((username, password))) =
            (auth.username.is_empty(), pair.as_deref().and_then(|pair| pair.split_once(':')))
        {
            (auth.username, auth.password) = (username.to_owned(), password.trim_end_matches('\0').to_owned());
        }
        Ok((auth != Self::default()).then_some(auth))
    }

    fn basic(&self) -> Option<String> {
        (!self.username.is_empty())
            .then(|| format!("Basic {}", STANDARD.encode(format!("{}:{}", self.username, self.password))))
    }
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAuth")
            .field("username", &self.username)
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// The `Authorization` header that answers a challenge to a request.
    pub(super) async fn answer(
        &self,
        challenges: &[Challenge],
        method: &Method,
        url: &str,
    ) -> Result<String, RegistryError> {
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let credentials = self.credentials.as_ref();
        match bearer {
            Some(Challenge::Bearer { realm, service, scope }) => {
                if let Some(auth) = credentials.filter(|auth| !auth.registry_token.is_empty()) {
                    return Ok(format!("Bearer {}", auth.registry_token));
                }
                let scope = scope.clone().unwrap_or_else(|| format!("repository:{}:pull", self.path));
                let token = self.fetch_token(realm, service.as_deref(), &scope).await;
                token.map(|token| format!("Bearer {token}")).map_err(|error| self.auth_error(method, url, &error))
            }
            _ => credentials
                .and_then(RegistryAuth::basic)
                .ok_or_else(|| self.auth_error(method, url, &"no basic auth credentials")),
        }
    }

    fn auth_error(&self, method: &Method, url: &str, reason: &impl fmt::Display) -> RegistryError {
        RegistryError::Auth { method: super::error::go_method(method), url: url.to_owned(), reason: reason.to_string() }
    }

    async fn fetch_token(&self, realm: &str, service: Option<&str>, scope: &str) -> Result<String, RegistryError> {
        let (method, url, request) = self.token_request(realm, service, scope)?;
        let response = self.await_answer(&method, &url, request.send()).await?;
        let response = super::session::check_status(response, &self.config).await?;
        let body = read_limited(response, "token", MAX_TOKEN_ANSWER, &self.config).await?;
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|error| {
            self.auth_error(&method, &url, &format_args!("unable to decode token response: {error}"))
        })?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        token.ok_or_else(|| {
            self.auth_error(&method, &url, &"authorization server did not include a token in the response")
        })
    }

    /// A refresh token is posted (OAuth 2); a name and password ride in the header of a plain request.
    fn token_request(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
    ) -> Result<(Method, String, reqwest::RequestBuilder), RegistryError> {
        let bad_realm = |error: url::ParseError| {
            self.auth_error(&Method::GET, realm, &format_args!("invalid token auth challenge realm: {error}"))
        };
        let mut url = url::Url::parse(realm).map_err(bad_realm)?;
        let credentials = self.credentials.as_ref();
        if let Some(auth) = credentials.filter(|auth| !auth.identity_token.is_empty()) {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", &auth.identity_token);
            form.append_pair("client_id", CLIENT_ID).append_pair("scope", scope);
            service.map(|service| form.append_pair("service", service));
            let request = self
                .client
                .post(url.clone())
                .header("Content-Type", "application/x-www-form-urlencoded")
                .body(form.finish());
            return Ok((Method::POST, url.into(), request));
        }
        url.query_pairs_mut().extend_pairs(service.map(|service| ("service", service))).append_pair("scope", scope);
        let basic = credentials.and_then(RegistryAuth::basic);
        if let (Some(auth), Some(_)) = (credentials, &basic) {
            url.query_pairs_mut().append_pair("account", &auth.username);
        }
        let request = self.client.get(url.clone());
        let request = basic.into_iter().fold(request, |request, basic| request.header("Authorization", basic));
        Ok((Method::GET, url.into(), request))
    }
}

/// The challenges of an answer's `WWW-Authenticate` headers, and the error that they may carry.
pub(super) fn parse_challenges<'a>(headers: impl Iterator<Item = &'a str>) -> (Vec<Challenge>, Option<ChallengeError>) {
    let (mut challenges, mut error) = (Vec::new(), None);
    for header in headers {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        let parameters = parse_parameters(rest);
        let get = |key: &str| parameters.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        if scheme.eq_ignore_ascii_case("basic") {
            challenges.push(Challenge::Basic);
        } else if let (true, Some(realm)) = (scheme.eq_ignore_ascii_case("bearer"), get("realm")) {
            challenges.push(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
            error = get("error").and_then(|error| challenge_error(&error, get("error_description")));
        }
    }
    (challenges, error)
}

fn challenge_error(error: &str, description: Option<String>) -> Option<ChallengeError> {
    let (code, message) = match error {
        "invalid_token" => ("UNAUTHORIZED", "authentication required"),
        "insufficient_scope" => ("DENIED", "requested access to the resource is denied"),
        _ => return None,
    };
    Some(ChallengeError {
        code,
        message: description.filter(|text| !text.is_empty()).unwrap_or_else(|| message.to_owned()),
    })
}

/// `key="value", key=value`, with backslash escapes inside quotes.
fn parse_parameters(text: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
        let (value, remaining) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => after
                .split_once(',')
                .map_or((after.trim().to_owned(), ""), |(value, rest)| (value.trim().to_owned(), rest)),
        };
        parameters.push((key, value));
        rest = remaining;
    }
    parameters
}

fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((index, char)) = chars.next() {
        match char {
            '"' => return (value, &text[index + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            char => value.push(char),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_with_commas_and_escapes_inside_quotes() {
        let header =
            r#"Bearer realm="https://auth.example/token",service="registry \"x\"",scope="repository:a/b:pull,push""#;
        let (challenges, error) = parse_challenges([header, "Basic realm=x"].into_iter());
        assert_eq!(error, None);
        assert_eq!(
            challenges,
            [
                Challenge::Bearer {
                    realm: "https://auth.example/token".into(),
                    service: Some("registry \"x\"".into()),
                    scope: Some("repository:a/b:pull,push".into()),
                },
                Challenge::Basic,
            ]
        );
    }

    #[test]
    fn an_insufficient_scope_is_a_denial() {
        let (_, error) = parse_challenges([r#"Bearer realm="https://x/t",error="insufficient_scope""#].into_iter());
        assert_eq!(
            error,
            Some(ChallengeError { code: "DENIED", message: "requested access to the resource is denied".to_owned() })
        );
    }

    #[test]
    fn the_header_gives_credentials_in_both_spellings_and_debug_hides_them() {
        let json = format!(r#"{{"auth":"{}","serveraddress":"r"}}"#, STANDARD.encode("me:secret:x"));
        let auth = RegistryAuth::from_header(&URL_SAFE.encode(json)).expect("reads").expect("some");
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("me", "secret:x"));
        assert!(!format!("{auth:?}").contains("secret"));
        assert_eq!(RegistryAuth::from_header(&URL_SAFE.encode("{}")), Ok(None));
        assert!(RegistryAuth::from_header("***").is_err());
        assert!(RegistryAuth::from_header(&URL_SAFE.encode("7")).is_err());
    }
}
