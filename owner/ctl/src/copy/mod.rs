//! Files between this machine and a container, as tar streams: what `cp` and `image push` share.

pub(crate) mod pack;
pub(crate) mod pipe;
pub(crate) mod place;
pub(crate) mod transfer;
pub(crate) mod unpack;
