//! Verification against the simulated platform and recorded evidence.
