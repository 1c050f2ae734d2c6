//! How a process ended.

/// Exit status of a process, as a shell would report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// Ended by itself with this code.
    Exited(u8),
    /// Ended by a signal (1 to 64).
    Signalled(u8),
}

impl ExitStatus {
    /// The code a shell reports: the code itself, or 128 plus the signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => i32::from(code),
            Self::Signalled(signal) => 128 + i32::from(signal),
        }
    }

    pub fn success(self) -> bool {
        self == Self::Exited(0)
    }
}
