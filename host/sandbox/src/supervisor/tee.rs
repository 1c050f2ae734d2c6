//! The simulated TEE platform beside the VM: what the secure processor is on a real host.

use std::{
    io,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
};

use postern_model::{HostData, Measurement, sim_device::VSOCK_PORT};
use postern_simtee::{Launch, MeasureError, Platform, PlatformError, SimServer, measure_process, serve};

use super::bridge::Bridge;
use crate::vsock::ShortPath;

/// The simulated platform failed.
#[derive(Debug, thiserror::Error)]
pub enum TeeError {
    #[error("the platform in {} cannot be used", path.display())]
    Platform { path: PathBuf, source: PlatformError },
    #[error("the running QEMU cannot be measured")]
    Measure(#[from] MeasureError),
    #[error("the platform cannot listen on {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error(
        "the platform cannot listen on the host's vsock port {VSOCK_PORT}, of which all guests share one"
    )]
    Vsock(#[source] io::Error),
}

/// A platform that serves one guest. Ends when dropped.
#[derive(Debug)]
pub(super) struct Tee {
    _server: SimServer,
    _bridge: Option<Bridge>,
}

impl Tee {
    /// Serves reports of a guest that was measured on `socket`, and on the kernel's vsock for the guest with context id `cid`,
    /// if there is one.
    pub(super) fn start(
        directory: &Path,
        measurement: Measurement,
        host_data: HostData,
        socket: &Path,
        cid: Option<u32>,
    ) -> Result<Self, TeeError> {
        let failed = |source| TeeError::Platform { path: directory.to_owned(), source };
        let platform = Platform::open_or_create(directory).map_err(failed)?;
        let guest = platform.launch(Launch::new(measurement, host_data)).map_err(failed)?;
        let listen = |source| TeeError::Listen { path: socket.to_owned(), source };
        let short = ShortPath::new(socket).map_err(listen)?;
        let listener = UnixListener::bind(short.path()).map_err(listen)?;
        let server = serve(listener, guest).map_err(listen)?;
        let bridge = cid.map(|cid| Bridge::start(cid, VSOCK_PORT, socket.to_owned())).transpose();
        Ok(Self { _server: server, _bridge: bridge.map_err(TeeError::Vsock)? })
    }
}

/// Measures the QEMU that runs as `qemu`.
pub(super) fn measure(qemu: u32) -> Result<Measurement, TeeError> {
    Ok(measure_process(qemu)?)
}

/// Where the platform's root certificate is, for an owner who wants to accept it by name.
pub fn simulated_root(directory: &Path) -> Result<PathBuf, TeeError> {
    let failed = |source| TeeError::Platform { path: directory.to_owned(), source };
    let platform = Platform::open_or_create(directory).map_err(failed)?;
    Ok(platform.root_path().map_or_else(|| directory.join("root.pem"), Path::to_owned))
}
