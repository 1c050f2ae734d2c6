//! What a start reports while it goes on: one line per stage, as JSON or for people.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// One line of progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "stage")]
pub enum Report {
    /// QEMU is up and measured; the guest has not run yet.
    Vmm { millis: u64 },
    /// The kernel has handed over to the agent.
    Kernel { millis: u64 },
    /// The agent answers.
    Agent { millis: u64 },
    /// The sandbox and its network are configured.
    Sandbox { millis: u64 },
    /// The owner can connect. `millis` is the whole start.
    Ready { millis: u64, endpoint: String, directory: String },
    /// Nothing was started, or all of it was taken down again.
    Failed { kind: String, exit: u8, message: String, causes: Vec<String>, hint: Option<String> },
}

impl Report {
    /// The stage's name.
    pub fn stage(&self) -> &'static str {
        match self {
            Self::Vmm { .. } => "vmm",
            Self::Kernel { .. } => "kernel",
            Self::Agent { .. } => "agent",
            Self::Sandbox { .. } => "sandbox",
            Self::Ready { .. } => "ready",
            Self::Failed { .. } => "failed",
        }
    }

    /// As one line of JSON.
    pub fn to_json(&self) -> String {
        // Strings and numbers always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// As one line for people; `None` for a failure, which is shown as an error.
    pub fn to_text(&self) -> Option<String> {
        let line = |millis: u64| format!("{:<8} {:>6.1} s", self.stage(), millis as f64 / 1000.0);
        match self {
            Self::Vmm { millis }
            | Self::Kernel { millis }
            | Self::Agent { millis }
            | Self::Sandbox { millis } => Some(line(*millis)),
            Self::Ready { millis, endpoint, .. } => Some(format!("{}  {endpoint}", line(*millis))),
            Self::Failed { .. } => None,
        }
    }
}

/// Milliseconds of a report.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Who a start reports to. A failure to report means that nobody waits for the pod any more: the start is given up.
pub trait Listener {
    fn report(&mut self, report: &Report) -> io::Result<()>;
}

/// Lines on a stream.
#[derive(Debug)]
pub struct Lines<W> {
    pub writer: W,
    pub json: bool,
}

impl<W: Write> Listener for Lines<W> {
    fn report(&mut self, report: &Report) -> io::Result<()> {
        let line = match self.json {
            true => Some(report.to_json()),
            false => report.to_text(),
        };
        if let Some(line) = line {
            writeln!(self.writer, "{line}")?;
            self.writer.flush()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back() {
        let ready =
            Report::Ready { millis: 4900, endpoint: "tcp://127.0.0.1:1".into(), directory: "/x".into() };
        let json = ready.to_json();
        assert!(json.starts_with("{\"stage\":\"ready\",\"millis\":4900,\"endpoint\":\"tcp://127.0.0.1:1\""));
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), ready);
        assert_eq!(ready.to_text().unwrap(), "ready       4.9 s  tcp://127.0.0.1:1");
    }
}
