//! The end of the pod: nothing that was started is left running, and whoever waits is told.

use std::time::Duration;

use postern_model::ExitStatus;
use tokio::time::{Instant, timeout_at};

use super::{
    Exit,
    driver::{Driver, Slot},
};

/// How long work that was under way when the pod ended may still take.
const LAST_WORK: Duration = Duration::from_secs(10);

impl Driver {
    pub(super) async fn take_down(mut self) {
        self.commands.close();
        let deadline = Instant::now() + LAST_WORK;
        let busy =
            |slot: &Slot| matches!(slot, Slot::Making) || matches!(slot, Slot::Made(c) if c.doing.is_some());
        while self.slots.values().any(busy) {
            match timeout_at(deadline, self.done.recv()).await {
                Ok(Some(done)) => self.finish(done),
                Ok(None) | Err(_) => break,
            }
        }
        self.engine.runtime.shut_down().await;
        for (name, slot) in std::mem::take(&mut self.slots) {
            let Slot::Made(container) = slot else { continue };
            // The pod is going: what cannot be removed goes with its memory, and there is nobody to tell.
            let _ = timeout_at(deadline, self.engine.remove(&container.plan)).await;
            let live = &container.view.live;
            if live.exit.borrow().is_none() {
                let status = ExitStatus::Signalled(9);
                live.exit.send_replace(Some(Exit { status, oom_killed: false }));
            }
            self.events.tell("remove", name.as_str());
        }
        self.publish();
    }
}
