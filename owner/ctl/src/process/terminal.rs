//! The user's terminal in raw mode, and back: on return, on error, on a signal, on panic.

use std::{
    io::{self, IsTerminal},
    sync::{Mutex, PoisonError},
};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The settings to go back to, while the terminal is raw.
static ORIGINAL: Mutex<Option<Termios>> = Mutex::new(None);

/// Standard input in raw mode for as long as this lives.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    pub(crate) fn enter() -> io::Result<Self> {
        let original = tcgetattr(io::stdin())?;
        let mut raw = original.clone();
        raw.make_raw();
        *ORIGINAL.lock().unwrap_or_else(PoisonError::into_inner) = Some(original);
        // Made before the switch, so that a failure halfway is undone too.
        let guard = Self(());
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(guard)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back as it was found. Harmless when it never was raw.
pub(crate) fn restore() {
    let original = ORIGINAL.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(original) = original {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &original);
    }
}

/// A panic must not leave the user with a terminal that does not echo.
pub(crate) fn restore_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        default(panic);
    }));
}

/// Rows and columns of the terminal, when there is one.
pub(crate) fn window_size() -> Option<postern_api::owner::WindowSize> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0)
        .then_some(postern_api::owner::WindowSize { rows: size.ws_row.into(), columns: size.ws_col.into() })
}

pub(crate) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}
