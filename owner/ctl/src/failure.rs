//! What went wrong, said to a person: what happened, why, and what to do next; and the exit code that goes with it.
//!
//! Printed as `postern: what: why` and `hint: what to do`. Everything a guest or host wrote passes through
//! [`text::clean`] on its way out.

use std::{error::Error, fmt, io};

use crate::{exit::Exit, image::SourceError, text};

type Source = Box<dyn Error + Send + Sync + 'static>;

#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    source: Option<Source>,
    hint: Option<String>,
    exit: Exit,
    quiet: bool,
}

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None, hint: None, exit, quiet: false }
    }

    /// Something failed for no reason that has a code of its own.
    pub(crate) fn general(what: impl Into<String>) -> Self {
        Self::new(Exit::Failed, what)
    }

    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// Ends the program with `exit` and prints nothing: a closed pipe, or all has been said.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self { quiet: true, ..Self::new(exit, "") }
    }

    /// Ended by a signal; `what` says what was left behind.
    pub(crate) fn interrupted(signal: u8, what: impl Into<String>) -> Self {
        Self::new(Exit::Signal(signal), what)
    }

    /// Writing to standard output failed. A reader that went away is not an error.
    pub(crate) fn stdout(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::silent(Exit::Done),
            _ => Self::general("cannot write to standard output").caused_by(error),
        }
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Source>) -> Self {
        let source = source.into();
        if self.exit == Exit::Failed {
            self.exit = code_of(&*source);
        }
        self.source = Some(source);
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    pub(crate) fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The same failure of a verb whose other codes belong to the container.
    pub(crate) fn of_container_verb(self) -> Self {
        match self.exit {
            Exit::Usage
            | Exit::CannotExecute
            | Exit::CommandNotFound
            | Exit::Signal(_)
            | Exit::Process(_) => self,
            _ if self.quiet => self,
            _ => self.with_exit(Exit::Own),
        }
    }

    /// Prints to standard error; what cannot be printed is lost quietly.
    pub(crate) fn print(&self) {
        if self.quiet {
            return;
        }
        crate::output::notice(&format!("postern: {self}"));
        if let Some(hint) = &self.hint {
            crate::output::notice(&format!("hint: {}", text::clean(hint)));
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::clean(&self.what))?;
        let mut last = self.what.clone();
        let mut next = self.source.as_deref().map(|source| source as &(dyn Error + 'static));
        while let Some(error) = next {
            let said = plain(&error.to_string());
            // Some crates repeat their source in their own text.
            if !last.contains(&said) {
                write!(f, ": {}", text::clean(&said))?;
                last = said;
            }
            next = error.source();
        }
        Ok(())
    }
}

/// What the system says, without its number: the words say the same.
fn plain(said: &str) -> String {
    let mut text = String::with_capacity(said.len());
    let mut rest = said;
    while let Some((before, after)) = rest.split_once(" (os error ") {
        text.push_str(before);
        rest = match after.split_once(')') {
            Some((number, after)) if number.bytes().all(|c| c.is_ascii_digit()) => after,
            _ => {
                text.push_str(" (os error ");
                after
            }
        };
    }
    text + rest
}

/// The code for what this machine says: no room for what was to be written, or nothing where something was named.
fn code_of(error: &(dyn Error + 'static)) -> Exit {
    let chain = || std::iter::successors(Some(error), |&error| error.source());
    let kind = chain().find_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kind {
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Exit::NoRoom,
        Some(io::ErrorKind::NotFound) => Exit::NotFound,
        _ if chain().any(|error| matches!(error.downcast_ref(), Some(SourceError::Missing(_)))) => {
            Exit::NotFound
        }
        _ => Exit::Failed,
    }
}

/// Turns a foreign error into a [`Failure`].
pub(crate) trait OrFail<T> {
    /// General failure, in these words.
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<Source>> OrFail<T> for Result<T, E> {
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::general(what()).caused_by(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_and_why_once() {
        let inner = io::Error::other("disk is full");
        let failure = Failure::general("cannot write x").caused_by(inner);
        assert_eq!(failure.to_string(), "cannot write x: disk is full");
        assert_eq!(failure.exit(), Exit::Failed);
    }

    #[test]
    fn what_the_system_says_is_told_in_words() {
        let failure = |text: &str| Failure::general("cannot").caused_by(text).to_string();
        assert_eq!(
            failure("x: Not a directory (os error 20): y (os error 2)"),
            "cannot: x: Not a directory: y"
        );
        assert_eq!(failure("a (os error of mine)"), "cannot: a (os error of mine)");
    }

    #[test]
    fn a_full_disk_has_a_code_of_its_own() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Failure::general("cannot write x").caused_by(full).exit(), Exit::NoRoom);
    }

    #[test]
    fn a_missing_file_has_a_code_of_its_own() {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(Failure::general("cannot read x").caused_by(missing).exit(), Exit::NotFound);
        let missing = SourceError::Missing("x.tar".into());
        assert_eq!(Failure::general("cannot read image x.tar").caused_by(missing).exit(), Exit::NotFound);
    }

    #[test]
    fn foreign_text_cannot_drive_the_terminal() {
        let failure = Failure::general("guest said").caused_by("\x1b]52;c;ZXZpbA==\x07");
        assert!(!failure.to_string().contains('\x1b'));
    }

    #[test]
    fn a_verb_with_the_containers_codes_keeps_only_what_is_unmistakable() {
        let own = |exit| Failure::new(exit, "x").of_container_verb().exit();
        assert_eq!(own(Exit::NotVerified), Exit::Own);
        assert_eq!(own(Exit::Unreachable), Exit::Own);
        assert_eq!(own(Exit::CommandNotFound), Exit::CommandNotFound);
        assert_eq!(own(Exit::Usage), Exit::Usage);
    }

    #[test]
    fn a_closed_pipe_is_silent() {
        assert!(Failure::stdout(io::ErrorKind::BrokenPipe.into()).quiet);
        assert!(!Failure::stdout(io::ErrorKind::StorageFull.into()).quiet);
    }
}
