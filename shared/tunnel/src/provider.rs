//! What TLS may use: one version, one provider, no negotiation beyond that.

use std::sync::Arc;

use rustls::{
    SignatureScheme, SupportedProtocolVersion,
    crypto::{
        CryptoProvider,
        ring::{cipher_suite, default_provider, kx_group},
    },
};

/// The only version that is spoken.
pub(crate) const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
/// HTTP/2 is the only thing that is spoken inside.
pub(crate) const ALPN: &[u8] = b"h2";
/// Keys of guests and owners are P-256.
pub(crate) const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;

/// ring, with the suites of TLS 1.3. AES-128 comes first: it is the fastest where there is AES in hardware.
/// P-256 does too: a guest that has just booted has used it for its own key, and everything it does for the first time is
/// slow where it is emulated. Either curve is as strong as the keys.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::SECP256R1, kx_group::X25519],
        ..default_provider()
    })
}
