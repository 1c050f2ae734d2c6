//! The verbs, one file each: arguments, calls, and what is printed.

pub(crate) mod apply;
pub(crate) mod attach;
pub(crate) mod audit;
pub(crate) mod completion;
pub(crate) mod cp;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod image;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod logs;
pub(crate) mod pause;
pub(crate) mod pod;
pub(crate) mod port_forward;
pub(crate) mod ps;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod top;
pub(crate) mod trust;
pub(crate) mod unpause;
pub(crate) mod version;
pub(crate) mod wait;

mod each;
mod show;
