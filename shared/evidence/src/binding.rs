//! What evidence is bound to: the one place that computes `REPORT_DATA`.
//!
//! SHA-512 over a list of fields, each preceded by its length as `u64` little-endian, so that no two lists of
//! fields give the same input. The first field is the domain, which names the use and its version: a value made
//! for one use is never valid for another.
//! ```text
//! certificate key   "postern evidence 1: certificate key"   SubjectPublicKeyInfo (DER)
//! session           "postern evidence 1: session"           nonce[32]   TLS exporter[32]
//! verify            "postern evidence 1: verify"            nonce[32]   TLS exporter[32]
//! ```

use ring::digest::{Context, SHA512};

/// Label with which both ends derive the exporter of a session (RFC 8446, section 7.5; RFC 5705, section 4).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-postern-v1";

/// What fresh evidence is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Opening a tunnel: asked for once, before the first request.
    Session,
    /// The owner verifies an open tunnel again.
    Verify,
}

impl Purpose {
    pub const ALL: [Self; 2] = [Self::Session, Self::Verify];

    fn domain(self) -> &'static [u8] {
        match self {
            Self::Session => b"postern evidence 1: session",
            Self::Verify => b"postern evidence 1: verify",
        }
    }
}

/// Binds evidence to a TLS key, given as DER `SubjectPublicKeyInfo`.
pub fn certificate_key(spki_der: &[u8]) -> [u8; 64] {
    digest(&[b"postern evidence 1: certificate key", spki_der])
}

/// Binds evidence to one TLS session and to the verifier's nonce.
pub fn session(nonce: &[u8; 32], exporter: &[u8; 32], purpose: Purpose) -> [u8; 64] {
    digest(&[purpose.domain(), nonce, exporter])
}

fn digest(fields: &[&[u8]]) -> [u8; 64] {
    let mut context = Context::new(&SHA512);
    for field in fields {
        context.update(&(field.len() as u64).to_le_bytes());
        context.update(field);
    }
    let mut out = [0; 64];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Computed with another implementation (Python's hashlib) from the table above. A change here is a change
    /// of protocol.
    #[test]
    fn golden_vectors() {
        let nonce = std::array::from_fn(|i| i as u8);
        let exporter = std::array::from_fn(|i| 0xff - i as u8);
        assert_eq!(hex::encode(certificate_key(b"spki")), KEY);
        assert_eq!(hex::encode(session(&nonce, &exporter, Purpose::Session)), SESSION);
        assert_eq!(hex::encode(session(&nonce, &exporter, Purpose::Verify)), VERIFY);
    }

    const KEY: &str = "a988fcb5f41ccbe7e26d00ecfa5bc41dd586034705cf23f9d6f0b92cfffcb9380ab4369b86c32a96a795633d7868df42fb142f67ceda90ac46367b7322bf1b71";
    const SESSION: &str = "66b89f1466bcab8994569d9ab81032f0e4b8bdc2e38103fa647b9fda652a624edefca82940e3e86295e8495309fc2ceaa8c65d05276a41efb9814c6f34a6569b";
    const VERIFY: &str = "69e72e21bd685fac73c51b1bfdfc1b215efc5cc453e7f9e273a816faf57dfeac518bc40e9c0906590aa24b210d75239a5c087df393baaea389736f5c854a7a66";

    proptest! {
        #[test]
        fn fields_do_not_run_into_each_other(left in ".{0,40}", right in ".{0,40}", cut in 0usize..40) {
            let joined = format!("{left}{right}");
            let Some((other_left, other_right)) = joined.split_at_checked(cut) else { return Ok(()) };
            let same = other_left == left;
            let one = digest(&[left.as_bytes(), right.as_bytes()]);
            let other = digest(&[other_left.as_bytes(), other_right.as_bytes()]);
            prop_assert_eq!(one == other, same);
        }
    }
}
