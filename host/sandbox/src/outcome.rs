//! How a command of `postern-host` ends: a contract with whoever calls it, by exit code and by name.

use std::fmt::Write;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $meaning:literal;)*) => {
        /// How a command ended. The numbers and names never change their meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Outcome {
            $($(#[$doc])* $variant = $code),*
        }

        impl Outcome {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name in JSON.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),*
                }
            }

            fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => $meaning),*
                }
            }
        }
    };
}

outcomes! {
    Done = 0, "done", "done as asked";
    Internal = 1, "internal", "something unexpected failed";
    Usage = 2, "usage", "the command line is wrong";
    UnknownPod = 3, "unknown-pod", "no pod has this name";
    PodExists = 4, "pod-exists", "a pod has this name already";
    MissingProgram = 5, "missing-program", "QEMU or the vsock helper is not installed";
    VmmEnded = 6, "vmm-ended", "QEMU or the vsock helper failed or ended by itself";
    GuestSilent = 7, "guest-silent", "the guest did not answer within the deadline";
    PortInUse = 8, "port-in-use", "the address to listen on is taken";
    BadImage = 9, "bad-image", "the image is missing, damaged or not an image";
    BadInitData = 10, "bad-init-data", "the init data is missing, damaged or not init data";
    State = 11, "state", "the state directory cannot be used";
    PodRunning = 12, "pod-running", "the pod is still running";
    GuestRefused = 13, "guest-refused", "the guest answered and refused to be set up";
    Tee = 14, "tee", "the simulated TEE platform failed";
    GuestPanicked = 15, "guest-panicked", "the guest's kernel panicked while booting";
    GuestGaveUp = 16, "guest-gave-up", "the guest found that it cannot or must not serve, and ended";
    BadDisk = 17, "bad-disk", "an image disk is missing, damaged or not an image disk";
    NoSpace = 18, "no-space", "no space is left where the state is kept";
    Interrupted = 130, "interrupted", "interrupted; what had been started was taken down";
}

impl Outcome {
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The table, for `--help`.
    pub fn table() -> String {
        let mut table = String::from("Exit codes:\n");
        for outcome in Self::ALL {
            // Writing into a String cannot fail.
            let _ = writeln!(table, "  {:>3}  {}", outcome.code(), outcome.meaning());
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_unique() {
        let mut codes: Vec<u8> = Outcome::ALL.iter().map(|outcome| outcome.code()).collect();
        let mut names: Vec<&str> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        codes.dedup();
        names.sort_unstable();
        names.dedup();
        assert_eq!((codes.len(), names.len()), (Outcome::ALL.len(), Outcome::ALL.len()));
        assert!(Outcome::table().contains("  8  the address to listen on is taken"));
    }
}
