//! A process in the pod, connected to this terminal: what `run`, `exec`, `attach` and `start -a` share.

pub(crate) mod input;
pub(crate) mod output;
pub(crate) mod signals;
pub(crate) mod stream;
pub(crate) mod terminal;
