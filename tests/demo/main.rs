//! `make demo`: plays the main story for people.

use std::process::ExitCode;

fn main() -> ExitCode {
    println!(
        "Postern demo: a pod only its owner controls, on this machine.  Simulated SNP: shows every step, protects nothing."
    );
    match postern_tests::story::play(&mut std::io::stdout().lock()) {
        Ok(()) => {
            println!(
                "Next: `target/dist/bin/postern --help`, and docs/threat-model.md for what each step stands for."
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
