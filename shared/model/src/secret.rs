//! Wrappers that say what a value may be used for: secrets never print, host input never passes unchecked.

use std::fmt;

use zeroize::Zeroize;

/// A value that is wiped when dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Every use is a place to review.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A value that came from the host. It opens only through a named check, and a check may narrow, never widen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostProvided<T>(T);

impl<T> HostProvided<T> {
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Opens the value through `check`, the only way out.
    pub fn check<U, E>(self, check: impl FnOnce(T) -> Result<U, E>) -> Result<U, E> {
        check(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print() {
        let secret = Secret::new(String::from("canary"));
        assert!(!format!("{secret:?}").contains("canary"));
    }
}
