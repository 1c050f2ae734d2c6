//! Signals that reach Postern while a process runs in the pod: passed on, or an order to leave.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{exit::Exit, failure::Failure};

/// The signals that are passed on to a process without a terminal.
const FORWARDED: [i32; 6] = [1, 2, 3, 10, 12, 15];

/// Waits for signals from the moment it is made; none is lost between two waits.
#[derive(Debug)]
pub(crate) struct Signals {
    forwarded: Vec<(u8, Signal)>,
    window: Signal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caught {
    Signal(u8),
    WindowChanged,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        let listen = |number: i32| {
            let listener = signal(SignalKind::from_raw(number))?;
            Ok((u8::try_from(number).unwrap_or(u8::MAX), listener))
        };
        Ok(Self {
            forwarded: FORWARDED.into_iter().map(listen).collect::<io::Result<_>>()?,
            window: signal(SignalKind::window_change())?,
        })
    }

    pub(crate) async fn next(&mut self) -> Caught {
        let Self { forwarded, window } = self;
        std::future::poll_fn(|cx| {
            for (number, listener) in forwarded.iter_mut() {
                if listener.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(Caught::Signal(*number));
                }
            }
            window.poll_recv(cx).map(|_| Caught::WindowChanged)
        })
        .await
    }
}

/// Ends a verb when Postern is asked to end; what it holds is undone on drop.
pub(crate) async fn interruptible(
    verb: impl Future<Output = Result<Exit, Failure>>,
) -> Result<Exit, Failure> {
    tokio::select! {
        biased;
        outcome = verb => outcome,
        signal = asked_to_end() => Err(Failure::silent(Exit::Signal(signal))),
    }
}

/// Resolves when Postern is asked to end: Ctrl-C, SIGTERM or SIGHUP. For verbs that pass nothing on.
pub(crate) async fn asked_to_end() -> u8 {
    let Ok(mut signals) = Signals::new() else { return std::future::pending().await };
    loop {
        match signals.next().await {
            Caught::Signal(signal @ (1 | 2 | 3 | 15)) => return signal,
            Caught::Signal(_) | Caught::WindowChanged => {}
        }
    }
}
