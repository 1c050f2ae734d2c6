//! A program that is nothing but a worker: for tests and benchmarks, where the agent is not at hand.
//!
//! With any argument but the worker's it waits for the end of its input, so that a test can look at it from beside it.

use std::io;

fn main() -> io::Result<()> {
    postern_container::worker::main();
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
