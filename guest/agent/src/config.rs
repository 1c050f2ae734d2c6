//! How the agent was started: as PID 1 of a guest, or `--standalone` with everything named on the command line.
