//! One repository of one registry: requests with their deadlines, credentials, redirects.

use std::{io, sync::Mutex, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, RANGE, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use postern_layer::printable;
use postern_model::{ImageReference, Sha256};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    Auth, Roots, Transport,
    auth::{AuthError, Challenge, basic, bearer, token_address},
};
use crate::manifest::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};

const CONNECT: Duration = Duration::from_secs(15);
/// From a request to the head of its answer, connection included.
const ANSWER: Duration = Duration::from_secs(60);
/// Between two pieces of a body.
const IDLE: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 5;
const MAX_TOKEN: u64 = 64 << 10;
const MAX_ERROR: u64 = 8 << 10;
/// Tries of one request, or of one layer from where it broke off.
const ATTEMPTS: u32 = 5;

/// Why a registry did not give what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("registry {0:?} is no address")]
    Address(String),
    #[error("registry {registry} cannot be reached")]
    Connect { registry: String, source: hyper_util::client::legacy::Error },
    #[error("registry {registry} did not answer within {} seconds", ANSWER.as_secs())]
    NoAnswer { registry: String },
    #[error("registry {registry} sent nothing for {} seconds", IDLE.as_secs())]
    Stalled { registry: String },
    #[error("connection to registry {registry} broke")]
    Broken { registry: String, source: hyper::Error },
    #[error("registry {registry} has no {what}{message}")]
    NotFound { registry: String, what: String, message: String },
    #[error("registry {registry} answers {what} with status {status}{message}")]
    Status { registry: String, what: String, status: u16, message: String },
    #[error("registry {registry} redirects {what} to {location:?}, which is not followed")]
    Redirect { registry: String, what: String, location: String },
    #[error("registry {registry} sends more than {limit} bytes for {what}")]
    TooLarge { registry: String, what: String, limit: u64 },
    #[error("registry {registry} does not let in")]
    Auth { registry: String, source: AuthError },
}

impl RequestError {
    /// Whether another try may go better.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Connect { source, .. } => !is_certificate_error(source),
            Self::NoAnswer { .. } | Self::Stalled { .. } | Self::Broken { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            Self::Address(_)
            | Self::NotFound { .. }
            | Self::Redirect { .. }
            | Self::TooLarge { .. }
            | Self::Auth { .. } => false,
        }
    }
}

/// A registry that cannot prove its name will not be able to a second later.
fn is_certificate_error(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let tls = error.downcast_ref::<rustls::Error>();
        let wrapped = || error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>();
        if matches!(tls.or_else(wrapped), Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        next = error.source();
    }
    false
}

/// The failures of one request so far.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    failures: u32,
}

impl Retry {
    /// Waits before the next try, or gives the failure back if there is none.
    pub(crate) async fn after(&mut self, error: RequestError) -> Result<(), RequestError> {
        self.failures += 1;
        if !error.is_transient() || self.failures == ATTEMPTS {
            return Err(error);
        }
        // Not the error: it names the registry, and logs may be seen by the host.
        tracing::debug!(self.failures, "registry request is tried again");
        tokio::time::sleep(backoff(self.failures)).await;
        Ok(())
    }
}

/// Doubles with every failure, and up to as much again by chance.
fn backoff(failures: u32) -> Duration {
    let base = 125_u64 << failures.min(6);
    let mut byte = [0];
    // Without chance all that is lost is the spread.
    let _ = SystemRandom::new().fill(&mut byte);
    Duration::from_millis(base + base * u64::from(byte[0]) / 256)
}

pub(crate) struct Registry {
    http: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    name: String,
    base: String,
    repository: String,
    auth: Auth,
    transport: Transport,
    /// Found out by the first answer that asks for it.
    authorization: Mutex<Option<HeaderValue>>,
}

impl Registry {
    pub(crate) fn new(
        reference: &ImageReference,
        auth: Auth,
        transport: Transport,
        roots: &Roots,
    ) -> Result<Self, RequestError> {
        let name = match reference.registry() {
            "docker.io" => "registry-1.docker.io",
            registry => registry,
        };
        let scheme = match transport {
            Transport::Tls => "https",
            Transport::PlainHttp => "http",
        };
        let base = format!("{scheme}://{name}/v2/{}", reference.repository());
        let address: Result<Uri, _> = base.parse();
        if address.is_err() {
            return Err(RequestError::Address(printable(name.as_bytes())));
        }
        Ok(Self {
            http: http_client(transport, roots),
            name: name.to_owned(),
            base,
            repository: reference.repository().to_owned(),
            auth,
            transport,
            authorization: Mutex::new(None),
        })
    }

    /// The bytes of a manifest or index, by tag or digest.
    pub(crate) async fn manifest(&self, reference: &str, limit: u64) -> Result<Bytes, RequestError> {
        let what = format!("manifest {reference}");
        let accept = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].join(", ");
        let address = format!("{}/manifests/{reference}", self.base);
        let mut retry = Retry::default();
        loop {
            let read = async {
                let response = self.get(&address, &what, Some(&accept), 0).await?;
                self.whole(response, &what, limit).await
            };
            match read.await {
                Err(error) => retry.after(error).await?,
                read => return read,
            }
        }
    }

    /// The bytes of a small blob.
    pub(crate) async fn small_blob(&self, digest: &Sha256, limit: u64) -> Result<Bytes, RequestError> {
        let what = format!("blob {digest}");
        let mut retry = Retry::default();
        loop {
            let read = async {
                let response = self.blob(digest, 0).await?;
                self.whole(response.body, &what, limit).await
            };
            match read.await {
                Err(error) => retry.after(error).await?,
                read => return read,
            }
        }
    }

    /// A blob from byte `from` on, if the registry can do that.
    pub(crate) async fn blob(&self, digest: &Sha256, from: u64) -> Result<Blob, RequestError> {
        let what = format!("blob {digest}");
        let response = self.get(&format!("{}/blobs/{digest}", self.base), &what, None, from).await?;
        let start = if response.status() == StatusCode::PARTIAL_CONTENT { from } else { 0 };
        Ok(Blob { start, body: response, registry: self.name.clone() })
    }

    /// Asks, and answers what the registry asks back: credentials once, redirects a few times.
    async fn get(
        &self,
        address: &str,
        what: &str,
        accept: Option<&str>,
        from: u64,
    ) -> Result<Response<Incoming>, RequestError> {
        let mut address: Uri =
            address.parse().map_err(|_| RequestError::Address(printable(address.as_bytes())))?;
        let own = address.authority().cloned();
        let mut asked = false;
        let mut redirects = 0;
        loop {
            let mut request = Request::get(address.clone());
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            // Where a redirect leads, the registry's credentials are nobody's business.
            if let Some(value) = self.authorization().filter(|_| address.authority() == own.as_ref()) {
                request = request.header(AUTHORIZATION, value);
            }
            let response = self.send(request).await?;
            match response.status() {
                StatusCode::OK => return Ok(response),
                StatusCode::PARTIAL_CONTENT if from > 0 => return Ok(response),
                StatusCode::UNAUTHORIZED if !asked => {
                    asked = true;
                    self.authenticate(&response).await?;
                }
                status if status.is_redirection() && redirects < MAX_REDIRECTS => {
                    redirects += 1;
                    address = self.redirect(&address, &response, what)?;
                }
                _ => return Err(self.refusal(response, what).await),
            }
        }
    }

    async fn send(&self, request: hyper::http::request::Builder) -> Result<Response<Incoming>, RequestError> {
        let user_agent = concat!("postern/", env!("CARGO_PKG_VERSION"));
        let request = request.header(USER_AGENT, user_agent).body(Empty::new());
        let request = request.map_err(|_| RequestError::Address(self.name.clone()))?;
        match timeout(ANSWER, self.http.request(request)).await {
            Err(_) => Err(RequestError::NoAnswer { registry: self.name.clone() }),
            Ok(Err(source)) => Err(RequestError::Connect { registry: self.name.clone(), source }),
            Ok(Ok(response)) => Ok(response),
        }
    }

    async fn authenticate(&self, response: &Response<Incoming>) -> Result<(), RequestError> {
        let failed = |source| RequestError::Auth { registry: self.name.clone(), source };
        let challenge = Challenge::of(response.headers()).map_err(failed)?;
        let value = match &challenge {
            Challenge::Basic => basic(&self.auth).map_err(failed)?,
            Challenge::Bearer { .. } => {
                let address = token_address(&challenge, &self.repository, self.transport).map_err(failed)?;
                let mut request = Request::get(address.clone());
                if matches!(self.auth, Auth::Basic { .. }) {
                    request = request.header(AUTHORIZATION, basic(&self.auth).map_err(failed)?);
                }
                let response = self.send(request).await?;
                match response.status() {
                    StatusCode::OK => {}
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(failed(self.rejection())),
                    _ => return Err(self.refusal(response, "the request for a token").await),
                }
                let answer = self.whole(response, "a token", MAX_TOKEN).await?;
                bearer(&answer, &address).map_err(failed)?
            }
        };
        *self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(value);
        Ok(())
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn rejection(&self) -> AuthError {
        match self.auth {
            Auth::Anonymous => AuthError::Anonymous,
            Auth::Basic { .. } => AuthError::Refused,
        }
    }

    /// Where a redirect leads; never from TLS to plain HTTP.
    fn redirect(&self, from: &Uri, response: &Response<Incoming>, what: &str) -> Result<Uri, RequestError> {
        let location = response.headers().get(LOCATION).map_or(&b""[..], HeaderValue::as_bytes);
        let refused = || RequestError::Redirect {
            registry: self.name.clone(),
            what: what.to_owned(),
            location: printable(location),
        };
        let target: Uri =
            std::str::from_utf8(location).ok().and_then(|text| text.parse().ok()).ok_or_else(refused)?;
        let mut parts = target.into_parts();
        if parts.scheme.is_none() && parts.authority.is_none() {
            parts.scheme = from.scheme().cloned();
            parts.authority = from.authority().cloned();
        }
        let target = Uri::from_parts(parts).map_err(|_| refused())?;
        match (target.scheme_str(), self.transport) {
            (Some("https"), _) | (Some("http"), Transport::PlainHttp) => Ok(target),
            _ => Err(refused()),
        }
    }

    /// An answer that is none, with what the registry says about it.
    async fn refusal(&self, response: Response<Incoming>, what: &str) -> RequestError {
        let (registry, what, status) = (self.name.clone(), what.to_owned(), response.status());
        let body = self.whole(response, &what, MAX_ERROR).await.unwrap_or_default();
        let message = error_message(&body);
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                RequestError::Auth { registry, source: self.rejection() }
            }
            StatusCode::NOT_FOUND => {
                let what = format!("{what} in {}", self.repository);
                RequestError::NotFound { registry, what, message }
            }
            status => RequestError::Status { registry, what, status: status.as_u16(), message },
        }
    }

    /// A whole body of bounded size.
    async fn whole(
        &self,
        response: Response<Incoming>,
        what: &str,
        limit: u64,
    ) -> Result<Bytes, RequestError> {
        let mut blob = Blob { start: 0, body: response, registry: self.name.clone() };
        let mut bytes = Vec::new();
        while let Some(chunk) = blob.chunk().await? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(RequestError::TooLarge {
                    registry: self.name.clone(),
                    what: what.to_owned(),
                    limit,
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.into())
    }
}

/// A blob on its way.
pub(crate) struct Blob {
    /// The first byte that comes, of the whole blob.
    pub(crate) start: u64,
    body: Response<Incoming>,
    registry: String,
}

impl Blob {
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, RequestError> {
        loop {
            match timeout(IDLE, self.body.body_mut().frame()).await {
                Err(_) => return Err(RequestError::Stalled { registry: self.registry.clone() }),
                Ok(None) => return Ok(None),
                Ok(Some(Err(source))) => {
                    return Err(RequestError::Broken { registry: self.registry.clone(), source });
                }
                // Trailers say nothing we ask for.
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// `: MESSAGE` of the registry's first error (distribution-spec, "error codes"), fit for one line.
fn error_message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Error>,
    }
    #[derive(Deserialize)]
    struct Error {
        message: Option<String>,
    }
    let errors = serde_json::from_slice::<Errors>(body).ok();
    let message = errors.and_then(|errors| errors.errors.into_iter().next()?.message);
    message.map(|message| format!(": {}", printable(message.as_bytes()))).unwrap_or_default()
}

fn http_client(transport: Transport, roots: &Roots) -> Client<HttpsConnector<HttpConnector>, Empty<Bytes>> {
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13]);
    #[expect(clippy::expect_used, reason = "ring's provider has TLS 1.3 suites, always")]
    let tls = versions.expect("TLS 1.3 is there").with_root_certificates(roots.store()).with_no_client_auth();
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
    let connector = match transport {
        Transport::Tls => builder.https_only().enable_http1().wrap_connector(tcp),
        Transport::PlainHttp => builder.https_or_http().enable_http1().wrap_connector(tcp),
    };
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_timer(TokioTimer::new())
        .build(connector)
}
