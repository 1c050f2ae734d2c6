//! Progress on standard error, only where a person watches.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// A bar for bytes whose number is known.
pub(crate) fn bytes(what: &str, total: u64) -> ProgressBar {
    shown(total, "{msg} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec} {eta}", what)
}

/// A counter for bytes whose number is not known.
pub(crate) fn bytes_open(what: &str) -> ProgressBar {
    shown(0, "{spinner} {msg} {bytes} {bytes_per_sec}", what)
}

/// Something that takes a while, in stages.
pub(crate) fn stages(what: &str) -> ProgressBar {
    let bar = shown(0, "{spinner} {msg} {elapsed}", what);
    if !bar.is_hidden() {
        bar.enable_steady_tick(Duration::from_millis(100));
    }
    bar
}

fn shown(total: u64, template: &str, what: &str) -> ProgressBar {
    if !output::stderr_is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what.to_owned());
    bar
}
