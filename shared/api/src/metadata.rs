//! What a status of `postern.v1` carries besides its code and text: response metadata that programs may rely on.

/// Set when a process could not be run: what a shell would return, `126` or `127`.
pub const EXIT: &str = "postern-exit";

/// Set when something was refused by policy: [`REFUSED_PHASE`] or [`REFUSED_ROLE`].
pub const REFUSED: &str = "postern-refused";
/// Not in the pod's present phase.
pub const REFUSED_PHASE: &str = "phase";
/// Not to a caller of this role.
pub const REFUSED_ROLE: &str = "role";
