//! The exit codes: a contract that scripts may rely on. Nothing else in the program chooses a number.
//!
//! ```text
//! 0       done
//! 1       failed
//! 2       usage: unknown flag, missing or malformed argument
//! 3       not verified: the pod could not prove what it is, so nothing was sent to it (`pod verify` says 10 to 16)
//! 4       unreachable: no connection, no answer in time, or the tunnel was cut
//! 5       denied: the guest refused it to this role or in this phase
//! 6       not found: no such pod, container, image or file
//! 7       no room: the pod, or this machine, has no memory, space or slot left for it
//! 10..16  `pod verify`: vendor chain, TCB, measurement, host data, key binding, session binding, this instance
//! 125     run, exec, attach, start -a: Postern itself failed, for any of the reasons above
//! 126     run, exec: the command cannot be executed
//! 127     run, exec: there is no such command
//! 128+n   ended by signal n (130 is Ctrl-C)
//! other   run, exec, attach, start -a: the container's own code
//! ```

use postern_evidence::appraise::Check;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    Failed,
    Usage,
    NotVerified,
    Unreachable,
    Denied,
    NotFound,
    NoRoom,
    /// `pod verify`: the first check that failed.
    Check(Check),
    /// A verb that hands on a container's code failed itself.
    Own,
    CannotExecute,
    CommandNotFound,
    /// Postern was ended by this signal.
    Signal(u8),
    /// The code of a container's process.
    Process(u8),
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotVerified => 3,
            Self::Unreachable => 4,
            Self::Denied => 5,
            Self::NotFound => 6,
            Self::NoRoom => 7,
            Self::Check(check) => check_code(check),
            Self::Own => 125,
            Self::CannotExecute => 126,
            Self::CommandNotFound => 127,
            Self::Signal(signal) => 128 | (signal & 127),
            Self::Process(code) => code,
        }
    }

    /// The code of a process as the wire carries it: 0 to 255, anything else is a guest's mistake.
    pub(crate) fn of_process(exit: &postern_api::owner::Exit) -> Self {
        Self::Process(u8::try_from(exit.code).unwrap_or(255))
    }
}

fn check_code(check: Check) -> u8 {
    match check {
        Check::VendorChain => 10,
        Check::Tcb => 11,
        Check::Measurement => 12,
        Check::HostData => 13,
        Check::KeyBinding => 14,
        Check::SessionBinding => 15,
        Check::Instance => 16,
    }
}

/// Shown by `postern --help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0 done · 1 failed · 2 usage · 3 not verified · 4 unreachable · 5 denied · 6 not found · 7 no room left
  10 to 16  pod verify: the check that failed, in the order it prints them
  125 postern failed (run, exec, attach, start -a) · 126 cannot execute · 127 no such command
  128+n ended by signal n · otherwise the container's own code";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_the_documented_one() {
        let codes = [
            (Exit::Done, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::NotVerified, 3),
            (Exit::Unreachable, 4),
            (Exit::Denied, 5),
            (Exit::NotFound, 6),
            (Exit::NoRoom, 7),
            (Exit::Own, 125),
            (Exit::CannotExecute, 126),
            (Exit::CommandNotFound, 127),
            (Exit::Signal(2), 130),
            (Exit::Signal(15), 143),
            (Exit::Process(42), 42),
        ];
        for (exit, code) in codes {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
    }

    #[test]
    fn each_check_has_its_own_code_in_printed_order() {
        let codes: Vec<u8> = Check::ALL.iter().map(|&check| Exit::Check(check).code()).collect();
        assert_eq!(codes, (10..=16).collect::<Vec<u8>>());
    }

    #[test]
    fn a_code_outside_a_byte_does_not_look_like_success() {
        let exit = postern_api::owner::Exit { code: 256, ..Default::default() };
        assert_eq!(Exit::of_process(&exit).code(), 255);
    }
}
