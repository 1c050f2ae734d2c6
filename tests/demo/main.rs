//! `make demo`: plays the main story for people. Called as `postern-demo vsock-tap …`, by a host that the story makes, it is
//! the wiretap on the VM's vsock.

use std::process::ExitCode;

use postern_tests::vsock_tap;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|word| word == vsock_tap::WORD) {
        return ended(vsock_tap::run(args));
    }
    ended(demo())
}

fn demo() -> anyhow::Result<()> {
    println!(
        "Postern demo: a pod only its owner controls, on this machine.  Simulated SNP: shows every step, protects nothing."
    );
    postern_tests::story::play(&mut std::io::stdout().lock(), &std::env::current_exe()?)?;
    println!(
        "Next: `target/dist/bin/postern --help`, and docs/threat-model.md for what each step stands for."
    );
    Ok(())
}

fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postern-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
