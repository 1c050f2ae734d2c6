//! How the agent was started: as PID 1 of a guest, or `--standalone` with everything named on the command line.
//!
//! In a guest nothing is read from the command line: the two ports are constants, and what configures security comes
//! from init data, whose digest is in the launch. Standalone exists for tests and benchmarks on an ordinary machine.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// TCP port of the owner's endpoint in a guest.
pub const OWNER_PORT: u16 = 50090;
/// vsock port of the host's endpoint, as every Kata agent has it.
pub const HOST_VSOCK_PORT: u32 = 1024;

/// The working plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Config {
    /// PID 1 of a guest.
    Guest,
    Standalone(Standalone),
}

/// What a standalone agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standalone {
    /// Unix socket of the host's endpoint.
    pub host_listen: PathBuf,
    pub owner_listen: SocketAddr,
    /// Unix socket of the simulated platform.
    pub tee_device: PathBuf,
    /// Init data in the form of the block device.
    pub init_data: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{0:?} is no option of postern-agent; as PID 1 it takes none, otherwise: {USAGE}")]
    Unknown(String),
    #[error("option {0} needs a value; usage: {USAGE}")]
    NoValue(&'static str),
    #[error("option {0} is given twice")]
    Twice(&'static str),
    #[error("option {0} is missing; usage: {USAGE}")]
    Missing(&'static str),
    #[error("{option} {value:?} is not of the form {form}")]
    Malformed { option: &'static str, value: String, form: &'static str },
    #[error("postern-agent is not PID 1; to run it as an ordinary process: {USAGE}")]
    NotInit,
}

const USAGE: &str = "postern-agent --standalone --host-listen unix:///PATH --owner-listen tcp://ADDRESS:PORT \
                     --tee-device unix:///PATH --init-data FILE";
const OPTIONS: [&str; 4] = ["--host-listen", "--owner-listen", "--tee-device", "--init-data"];

impl Config {
    /// Reads the arguments after the program's name; `pid` is this process's own.
    pub fn from_arguments(
        arguments: impl IntoIterator<Item = OsString>,
        pid: u32,
    ) -> Result<Self, ConfigError> {
        if pid == 1 {
            // The kernel hands PID 1 whatever words of its command line it does not know. They mean nothing here.
            return Ok(Self::Guest);
        }
        let mut values: [Option<String>; 4] = Default::default();
        let mut standalone = false;
        let mut arguments = arguments.into_iter().map(|word| word.to_string_lossy().into_owned());
        while let Some(word) = arguments.next() {
            if word == "--standalone" {
                standalone = true;
                continue;
            }
            let index =
                OPTIONS.iter().position(|option| *option == word).ok_or(ConfigError::Unknown(word))?;
            let value = arguments.next().ok_or(ConfigError::NoValue(OPTIONS[index]))?;
            if values[index].replace(value).is_some() {
                return Err(ConfigError::Twice(OPTIONS[index]));
            }
        }
        if !standalone {
            return Err(ConfigError::NotInit);
        }
        let mut value = |index: usize| values[index].take().ok_or(ConfigError::Missing(OPTIONS[index]));
        Ok(Self::Standalone(Standalone {
            host_listen: unix_path(OPTIONS[0], value(0)?)?,
            owner_listen: tcp_address(OPTIONS[1], value(1)?)?,
            tee_device: unix_path(OPTIONS[2], value(2)?)?,
            init_data: value(3)?.into(),
        }))
    }
}

fn unix_path(option: &'static str, value: String) -> Result<PathBuf, ConfigError> {
    match value.strip_prefix("unix://") {
        Some(path) if Path::new(path).is_absolute() => Ok(path.into()),
        _ => Err(ConfigError::Malformed { option, value, form: "unix:///PATH" }),
    }
}

fn tcp_address(option: &'static str, value: String) -> Result<SocketAddr, ConfigError> {
    match value.strip_prefix("tcp://").map(str::parse) {
        Some(Ok(address)) => Ok(address),
        _ => Err(ConfigError::Malformed { option, value, form: "tcp://ADDRESS:PORT" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "--standalone --host-listen unix:///h --owner-listen tcp://127.0.0.1:0 --tee-device unix:///t --init-data i";

    fn read(line: &str) -> Result<Config, ConfigError> {
        Config::from_arguments(line.split_whitespace().map(OsString::from), 2)
    }

    #[test]
    fn reads_what_a_standalone_agent_needs() {
        let Ok(Config::Standalone(standalone)) = read(GOOD) else { panic!("refused") };
        assert_eq!(standalone.host_listen, Path::new("/h"));
        assert_eq!(standalone.owner_listen, "127.0.0.1:0".parse().unwrap());
        assert_eq!(standalone.init_data, Path::new("i"));
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(read(""), Err(ConfigError::NotInit));
        assert_eq!(read("--standalone"), Err(ConfigError::Missing("--host-listen")));
        assert_eq!(read("--standalone --init-data"), Err(ConfigError::NoValue("--init-data")));
        assert!(matches!(read("--debug"), Err(ConfigError::Unknown(_))));
        assert_eq!(read(&format!("{GOOD} --init-data x")), Err(ConfigError::Twice("--init-data")));
        for (good, bad) in
            [("unix:///h", "/h"), ("unix:///h", "unix://h"), ("tcp://127.0.0.1:0", "127.0.0.1:0")]
        {
            assert!(matches!(read(&GOOD.replace(good, bad)), Err(ConfigError::Malformed { .. })), "{bad}");
        }
    }

    #[test]
    fn a_guest_takes_nothing_from_its_command_line() {
        let words = ["--standalone", "--evil"].map(OsString::from);
        assert_eq!(Config::from_arguments(words, 1), Ok(Config::Guest));
    }
}
