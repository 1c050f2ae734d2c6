//! `postern-simtee`: a simulated SNP platform on a socket, and its root. For tests and development.

use std::{
    fs, io,
    io::Write,
    os::unix::net::{UnixDatagram, UnixListener},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use postern_model::{HostData, Measurement};
use postern_simtee::{Launch, Platform, serve};

/// A simulated SNP platform. It shows every step and protects nothing.
#[derive(Debug, Parser)]
#[command(name = "postern-simtee", version)]
struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Signs reports about one guest, for the first who connects, until ended
    Serve {
        /// Socket to listen on, as unix:///PATH
        #[arg(long, value_parser = unix_path)]
        listen: PathBuf,
        /// Directory of the platform's keys; made when it is not there
        #[arg(long)]
        state: PathBuf,
        /// Launch measurement of the guest: 96 hexadecimal digits
        #[arg(long, value_parser = Measurement::from_hex)]
        measurement: Measurement,
        /// Digest of the guest's init data: 64 hexadecimal digits
        #[arg(long, value_parser = HostData::from_hex)]
        host_data: HostData,
    },
    /// Prints the platform's root certificate as PEM
    Root {
        /// Directory of the platform's keys; made when it is not there
        #[arg(long)]
        state: PathBuf,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Verb::Serve { listen, state, measurement, host_data } => {
            let guest = Platform::open_or_create(&state)?.launch(Launch::new(measurement, host_data))?;
            let listener = bind(&listen)?;
            let _server = serve(listener, guest).context("cannot start the server")?;
            writeln!(io::stdout(), "listening on unix://{}", listen.display())?;
            // Until a signal ends the process; a socket left behind is replaced by the next one.
            loop {
                thread::park();
            }
        }
        Verb::Root { state } => {
            let platform = Platform::open_or_create(&state)?;
            io::stdout().write_all(platform.root_pem().as_bytes()).context("cannot print the root")
        }
    }
}

fn unix_path(address: &str) -> Result<PathBuf, String> {
    match address.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(path.into()),
        _ => Err("write it as unix:///PATH, with an absolute path".into()),
    }
}

/// Binds a socket, in the place of one on which nobody listens any more.
fn bind(path: &Path) -> Result<UnixListener> {
    let in_use = || format!("cannot listen on {}", path.display());
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if !is_stale(path) {
                bail!("{}: somebody listens there already", in_use());
            }
            fs::remove_file(path).with_context(in_use)?;
            UnixListener::bind(path).with_context(in_use)
        }
        other => other.with_context(in_use),
    }
}

/// Whether nobody listens on a socket. Asked with a socket of another type, which never takes a connection: the
/// device is given away once.
fn is_stale(path: &Path) -> bool {
    let asked = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
    asked.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
