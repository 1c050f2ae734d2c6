//! A pod that is ready, until its end: by itself, by request, or by force.

use std::time::Duration;

use postern_launch::AGENT_VSOCK_PORT;
use serde_json::json;
use tokio::{sync::watch, time::timeout};

use super::{
    Stop,
    boot::{CRASH_LINE, Parts},
    requested,
};
use crate::{
    client::{AGENT_SERVICE, HostClient},
    exec::Managed,
    qmp::Qmp,
    state::LockedPod,
    vsock::VsockAddress,
};

/// How long the guest may take to answer the request to end.
const REQUEST: Duration = Duration::from_secs(5);
/// How long the guest may take to end by itself after that.
const GUEST_END: Duration = Duration::from_secs(10);
/// How long QEMU may take to quit.
const QEMU_END: Duration = Duration::from_secs(5);

/// What is needed to watch and end a running pod.
#[derive(Debug)]
pub(super) struct Live {
    qmp: Qmp,
    vsock: VsockAddress,
    shutdown_reason: Option<String>,
}

impl Live {
    pub(super) fn new(qmp: Qmp, vsock: VsockAddress) -> Self {
        Self { qmp, vsock, shutdown_reason: None }
    }

    /// Watches the pod until it has ended, and says why it did.
    pub(super) async fn until_the_end(
        &mut self,
        pod: &LockedPod,
        parts: &Parts,
        stop: &mut watch::Receiver<Stop>,
    ) -> String {
        let Some(qemu) = parts.qemu() else { return "there was no QEMU".into() };
        tokio::select! {
            () = requested(stop, Stop::Gracefully) => {}
            why = self.own_end(qemu) => return why,
            // Never comes: a pod without its host channel still serves its owner.
            () = mourn(parts.vsock(), pod) => {}
        }
        tokio::select! {
            biased;
            () = requested(stop, Stop::Now) => "killed on request".into(),
            () = self.end_gracefully(qemu, parts.vsock()) => "stopped on request".into(),
        }
    }

    /// Waits until QEMU has ended without having been asked to.
    async fn own_end(&mut self, qemu: &Managed) -> String {
        loop {
            tokio::select! {
                biased;
                event = self.qmp.event() => match event {
                    Ok(event) => {
                        self.shutdown_reason = event.shutdown_reason().map(str::to_owned).or(self.shutdown_reason.take());
                    }
                    // A QEMU that cannot be heard any more has ended or is about to.
                    Err(_) => break,
                },
                _ = qemu.ended() => break,
            }
        }
        let ended = timeout(QEMU_END, qemu.ended()).await;
        match (self.shutdown_reason.as_deref(), ended) {
            (Some("guest-shutdown" | "guest-reset"), _) => "the guest powered off".into(),
            (Some("guest-panic"), _) => "the guest's kernel panicked".into(),
            (Some(reason), _) => format!("QEMU shut down: {reason}"),
            (None, Ok(ended)) => format!("QEMU ended: {ended}"),
            (None, Err(_)) => "QEMU stopped answering".into(),
        }
    }

    /// Asks the guest, then QEMU. Whoever called kills what is left.
    async fn end_gracefully(&mut self, qemu: &Managed, vsock: Option<&Managed>) {
        let asked = async {
            if vsock.is_some_and(Managed::has_ended) {
                return None;
            }
            let client = HostClient::connect(&self.vsock, AGENT_VSOCK_PORT, REQUEST).await.ok()?;
            client.call(AGENT_SERVICE, "DestroySandbox", Vec::new(), REQUEST).await.ok()
        };
        if asked.await.is_some() && timeout(GUEST_END, qemu.ended()).await.is_ok() {
            return;
        }
        if self.qmp.execute("quit", json!({})).await.is_ok() {
            let _ = timeout(QEMU_END, qemu.ended()).await;
        }
    }
}

/// Says so if the vsock device ends or crashes, once, and never returns.
async fn mourn(vsock: Option<&Managed>, pod: &LockedPod) {
    if let Some(vsock) = vsock {
        let why = tokio::select! {
            ended = vsock.ended() => ended.to_string(),
            line = vsock.stderr().line_containing(CRASH_LINE) => line,
        };
        tracing::warn!(pod = %pod.name(), why, "the vsock helper is gone; the host can no longer reach this guest");
    }
    std::future::pending::<()>().await;
}
