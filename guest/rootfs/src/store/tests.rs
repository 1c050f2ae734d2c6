//! The store at its real boundary: archives as tools write them, mounts, full disks, registries on loopback.

mod archives;
mod hostile_registry;
mod lies;
mod lifecycle;
mod mounts;
mod real_registry;
mod registry;
mod space;
mod support;
