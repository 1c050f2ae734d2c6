//! Reading images from a registry (OCI distribution-spec 1.1), over HTTP/1.1 with hyper and rustls.
//!
//! Not with `oci-client` 0.18, the usual choice: it makes a second HTTP client with default settings whenever it makes
//! one, and that panics where no certificate files are, as in this guest, even if roots are given; it reads manifests
//! and tokens of any size into memory; and it brings reqwest and url with its Unicode tables, more than thirty crates
//! that nothing else in the agent needs, where the owner endpoint has hyper and rustls already.

mod auth;
mod client;

use std::sync::Arc;

use postern_model::Secret;
use rustls::RootCertStore;

pub use auth::AuthError;
pub use client::RequestError;
pub(crate) use client::{Registry, Retry};

/// Who asks the registry.
#[derive(Debug, Clone)]
pub enum Auth {
    Anonymous,
    Basic { username: String, password: Secret<String> },
}

/// How the registry is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TLS 1.3, against the public roots built in.
    Tls,
    /// HTTP. Content is still checked against its digests; who serves it is not.
    PlainHttp,
}

/// Whom to believe that a registry is the one it says.
#[derive(Debug, Clone)]
pub(crate) enum Roots {
    /// Mozilla's list, built in: the guest has no files of certificates.
    Public,
    #[cfg(test)]
    Only(Arc<RootCertStore>),
}

impl Roots {
    /// Made when they are needed, so that a pod that never pulls does not hold them.
    fn store(&self) -> Arc<RootCertStore> {
        match self {
            Self::Public => Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }),
            #[cfg(test)]
            Self::Only(roots) => Arc::clone(roots),
        }
    }
}
