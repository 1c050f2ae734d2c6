//! What happened in the pod, for the owner: a bounded history and a bounded broadcast.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::broadcast;

use crate::clock::unix_millis;

/// Events kept for those who come later.
const HISTORY: usize = 512;
/// Events that a subscriber may lag behind before it loses some.
const BACKLOG: usize = 256;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub unix_millis: u64,
    pub kind: &'static str,
    /// Name of the container or image; empty for the pod.
    pub subject: String,
    pub attributes: BTreeMap<&'static str, String>,
}

/// Where events are told and heard.
#[derive(Debug)]
pub struct EventHub {
    history: Mutex<VecDeque<Arc<Event>>>,
    live: broadcast::Sender<Arc<Event>>,
}

impl EventHub {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { history: Mutex::default(), live: broadcast::channel(BACKLOG).0 })
    }

    pub fn tell(&self, kind: &'static str, subject: impl Into<String>) {
        self.tell_with(kind, subject, []);
    }

    pub fn tell_with<const N: usize>(
        &self,
        kind: &'static str,
        subject: impl Into<String>,
        attributes: [(&'static str, String); N],
    ) {
        let event = Arc::new(Event {
            unix_millis: unix_millis(),
            kind,
            subject: subject.into(),
            attributes: attributes.into_iter().collect(),
        });
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(Arc::clone(&event));
        // Nobody listening is no fault. Sent under the lock, so that a subscriber sees each event once.
        let _ = self.live.send(event);
    }

    /// What is still known of the past, and everything from now on.
    pub fn subscribe(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        (history.iter().cloned().collect(), self.live.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn history_is_bounded_and_nothing_comes_twice() {
        let hub = EventHub::new();
        for number in 0..HISTORY + 3 {
            hub.tell("start", number.to_string());
        }
        let (history, mut live) = hub.subscribe();
        assert_eq!((history.len(), history[0].subject.as_str()), (HISTORY, "3"));
        hub.tell("exit", "web");
        assert_eq!(live.recv().await.unwrap().kind, "exit");
        assert!(live.try_recv().is_err());
    }
}
