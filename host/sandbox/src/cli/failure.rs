//! How a command fails: `postern-host: what: why`, `hint: what to do`, and the exit code.

use std::{error::Error, process::ExitCode};

use postern_sandbox::{
    Outcome,
    progress::Report,
    state::StateError,
    supervisor::{StartError, TeeError},
    tools::ToolError,
};
use serde::{Deserialize, Serialize};

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    outcome: Outcome,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(outcome: Outcome, error: &dyn Error, hint: Option<String>) -> Self {
        let mut causes = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        Self { outcome, message: error.to_string(), causes, hint }
    }

    pub(crate) fn internal(what: &str, error: &dyn Error) -> Self {
        let mut failure = Self::new(Outcome::Internal, error, None);
        failure.causes.insert(0, std::mem::replace(&mut failure.message, what.to_owned()));
        failure
    }

    /// What a pool is told.
    pub(super) fn to_reported(&self) -> Reported {
        Reported {
            exit: self.outcome.code(),
            message: self.message.clone(),
            causes: self.causes.clone(),
            hint: self.hint.clone(),
        }
    }

    /// As a supervisor reported it.
    pub(crate) fn reported(
        outcome: Outcome,
        message: String,
        causes: Vec<String>,
        hint: Option<String>,
    ) -> Self {
        Self { outcome, message, causes, hint }
    }

    /// As the last line of a start.
    pub(crate) fn to_report(&self) -> Report {
        Report::Failed {
            kind: self.outcome.as_str().to_owned(),
            exit: self.outcome.code(),
            message: self.message.clone(),
            causes: self.causes.clone(),
            hint: self.hint.clone(),
        }
    }

    /// Prints it to standard error.
    pub(crate) fn report(self) -> ExitCode {
        let mut text = format!("postern-host: {}", self.message);
        for cause in &self.causes {
            text.push_str(": ");
            text.push_str(cause);
        }
        if let Some(hint) = &self.hint {
            text.push_str("\nhint: ");
            text.push_str(hint);
        }
        // Where standard error cannot be written, the exit code has to do.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), (text + "\n").as_bytes());
        ExitCode::from(self.outcome.code())
    }
}

/// A failure of a process that this one has started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Reported {
    exit: u8,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Reported {
    /// One for which there are no more words than these.
    pub(super) fn internal(message: String) -> Self {
        Self { exit: Outcome::Internal.code(), message, causes: Vec::new(), hint: None }
    }

    pub(super) fn to_line(&self) -> String {
        std::iter::once(&self.message).chain(&self.causes).map(String::as_str).collect::<Vec<_>>().join(": ")
    }
}

impl From<Reported> for Failure {
    fn from(Reported { exit, message, causes, hint }: Reported) -> Self {
        let outcome = Outcome::ALL.iter().copied().find(|known| known.code() == exit);
        Self::reported(outcome.unwrap_or(Outcome::Internal), message, causes, hint)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::new(error.outcome(), &error, error.hint())
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Self::new(error.outcome(), &error, error.hint())
    }
}

impl From<ToolError> for Failure {
    fn from(error: ToolError) -> Self {
        Self::new(Outcome::MissingProgram, &error, Some(error.hint()))
    }
}

impl From<TeeError> for Failure {
    fn from(error: TeeError) -> Self {
        Self::new(Outcome::Tee, &error, None)
    }
}
