//! Reading images from a registry (OCI distribution-spec 1.1).

use postern_model::Secret;

/// Who asks the registry.
#[derive(Debug, Clone)]
pub enum Auth {
    Anonymous,
    Basic { username: String, password: Secret<String> },
}

/// How the registry is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TLS, against the public roots built in.
    Tls,
    /// HTTP. Content is still checked against its digests; who serves it is not.
    PlainHttp,
}
