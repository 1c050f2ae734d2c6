//! A program that is nothing but a worker: for tests and benchmarks, where the agent is not at hand.

fn main() {
    postern_container::worker::main();
    eprintln!("postern-container-worker: started by the container runtime, not by hand");
    std::process::exit(2);
}
