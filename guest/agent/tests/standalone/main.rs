//! A real agent as an ordinary process, spoken to through the real tunnel. Needs root, as the agent does.

mod containers;
mod lifecycle;
mod rig;
