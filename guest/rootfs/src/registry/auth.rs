//! What a registry asks before it serves: Basic, or a token from somewhere else (distribution-spec, "token
//! authentication").

use base64::{Engine, engine::general_purpose::STANDARD};
use http_auth::parser::ChallengeParser;
use hyper::{
    HeaderMap, Uri,
    header::{HeaderValue, WWW_AUTHENTICATE},
};
use postern_model::Secret;
use serde::Deserialize;

use super::{Auth, Transport};

/// Why a registry's question for credentials could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("registry refuses anonymous access; give a user name and a password")]
    Anonymous,
    #[error("registry refuses the user name or password")]
    Refused,
    #[error("registry asks for credentials in a way that is not supported; Basic and Bearer are")]
    Unsupported,
    #[error("registry sends for a token to {0:?}, which is no address")]
    Realm(String),
    #[error("registry sends for a token to {0:?}, where credentials would not be encrypted")]
    PlainRealm(String),
    #[error("token service {0:?} answers with something that is no token")]
    NoToken(String),
    #[error("user name holds a colon or a control character")]
    UserName,
}

/// What the registry wants to see.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    /// Where to get a token.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// The challenge we can meet; a token is asked for in preference.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, AuthError> {
        let mut basic = false;
        for header in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(text) = header.to_str() else { continue };
            for challenge in ChallengeParser::new(text).map_while(Result::ok) {
                let parameter = |wanted: &str| {
                    let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted));
                    found.map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = true;
                } else if challenge.scheme.eq_ignore_ascii_case("bearer")
                    && let Some(realm) = parameter("realm")
                {
                    return Ok(Self::Bearer {
                        realm,
                        service: parameter("service"),
                        scope: parameter("scope"),
                    });
                }
            }
        }
        if basic { Ok(Self::Basic) } else { Err(AuthError::Unsupported) }
    }
}

/// `Authorization: Basic`.
pub(crate) fn basic(auth: &Auth) -> Result<HeaderValue, AuthError> {
    let Auth::Basic { username, password } = auth else {
        return Err(AuthError::Anonymous);
    };
    if username.contains(|c: char| c == ':' || c.is_control()) {
        return Err(AuthError::UserName);
    }
    let pair = Secret::new(format!("{username}:{}", password.expose()));
    sensitive(&Secret::new(format!("Basic {}", STANDARD.encode(pair.expose()))))
}

/// Where to ask for a token to read `repository`.
pub(crate) fn token_address(
    challenge: &Challenge,
    repository: &str,
    transport: Transport,
) -> Result<Uri, AuthError> {
    let Challenge::Bearer { realm, service, scope } = challenge else {
        return Err(AuthError::Unsupported);
    };
    let shown = || realm.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
    let pull = format!("repository:{repository}:pull");
    let scope = scope.as_deref().unwrap_or(&pull);
    let mut address = realm.clone();
    let mut separator = if realm.contains('?') { '&' } else { '?' };
    for (key, value) in [("service", service.as_deref()), ("scope", Some(scope))] {
        if let Some(value) = value {
            address += &format!("{separator}{key}={}", encoded(value));
            separator = '&';
        }
    }
    let address: Uri = address.parse().map_err(|_| AuthError::Realm(shown()))?;
    match (address.scheme_str(), transport) {
        (Some("https"), _) | (Some("http"), Transport::PlainHttp) => Ok(address),
        (Some("http"), Transport::Tls) => Err(AuthError::PlainRealm(shown())),
        _ => Err(AuthError::Realm(shown())),
    }
}

/// The token in a token service's answer, as a header.
pub(crate) fn bearer(answer: &[u8], service: &Uri) -> Result<HeaderValue, AuthError> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let none = || AuthError::NoToken(service.host().unwrap_or_default().to_owned());
    let answer: Answer = serde_json::from_slice(answer).map_err(|_| none())?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty()).ok_or_else(none)?;
    sensitive(&Secret::new(format!("Bearer {token}"))).map_err(|_| none())
}

fn sensitive(text: &Secret<String>) -> Result<HeaderValue, AuthError> {
    let mut value = HeaderValue::from_str(text.expose()).map_err(|_| AuthError::UserName)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Percent-encoding of everything but unreserved characters (RFC 3986, section 2.3).
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            byte => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(header: &'static str) -> Result<Challenge, AuthError> {
        let mut headers = HeaderMap::new();
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(header));
        Challenge::of(&headers)
    }

    fn bearer_at(realm: &str) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: Some("r.io".into()), scope: None }
    }

    #[test]
    fn reads_challenges() {
        assert_eq!(challenge("Basic realm=\"x\"").unwrap(), Challenge::Basic);
        assert_eq!(
            challenge("Basic realm=\"x\", bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:a/b:pull,push\"").unwrap(),
            Challenge::Bearer { realm: "https://a/t".into(), service: Some("s".into()), scope: Some("repository:a/b:pull,push".into()) }
        );
        for header in ["", "Digest realm=\"x\"", "Bearer service=\"x\"", "=,,\"", "Basic"] {
            let read = challenge(header);
            assert!(
                matches!(read, Err(AuthError::Unsupported) | Ok(Challenge::Basic)),
                "{header:?} {read:?}"
            );
        }
    }

    #[test]
    fn asks_for_tokens_only_where_it_is_safe() {
        let address =
            token_address(&bearer_at("https://auth.r.io/token?a=b"), "x/y", Transport::Tls).unwrap();
        assert_eq!(
            address.to_string(),
            "https://auth.r.io/token?a=b&service=r.io&scope=repository%3Ax%2Fy%3Apull"
        );
        assert!(matches!(
            token_address(&bearer_at("http://a/t"), "x", Transport::Tls),
            Err(AuthError::PlainRealm(_))
        ));
        assert!(token_address(&bearer_at("http://a/t"), "x", Transport::PlainHttp).is_ok());
        for realm in ["", "file:///etc/passwd", "/token", "https://"] {
            assert!(
                matches!(token_address(&bearer_at(realm), "x", Transport::Tls), Err(AuthError::Realm(_))),
                "{realm}"
            );
        }
    }

    #[test]
    fn reads_tokens_of_both_names_and_nothing_else() {
        let service = Uri::from_static("https://auth.r.io/token");
        assert_eq!(bearer(br#"{"token":"abc"}"#, &service).unwrap(), "Bearer abc");
        assert_eq!(bearer(br#"{"access_token":"abc","expires_in":1}"#, &service).unwrap(), "Bearer abc");
        for answer in ["", "{}", "{\"token\":\"\"}", "{\"token\":\"a\\nb\"}", "[]"] {
            assert!(matches!(bearer(answer.as_bytes(), &service), Err(AuthError::NoToken(_))), "{answer}");
        }
    }

    #[test]
    fn credentials_are_never_printed() {
        let auth = Auth::Basic { username: "u".into(), password: Secret::new("canary".into()) };
        let header = basic(&auth).unwrap();
        assert_eq!(header, "Basic dTpjYW5hcnk=");
        assert!(!format!("{auth:?} {header:?}").contains("canary"));
        assert!(!format!("{header:?}").contains("dTpj"));
    }
}
