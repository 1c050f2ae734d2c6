//! `postern pod verify`: every check by its name, and an exit code that says which one failed.

use postern_evidence::{Check, RootKind};
use postern_launch::Mitigations;
use postern_model::PodName;
use postern_tunnel::{Attested, client::CheckFailure};
use serde_json::json;

use crate::{
    door::{Owner, Plan, Session, hint},
    exit::Exit,
    failure::Failure,
    launch::parse,
    output::{self, Format, FormatArg, mark},
    record::PodRecord,
    text,
    trust::TrustStore,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 verified · 4 no answer · otherwise the check that failed:\n  10 vendor chain · 11 TCB · 12 measurement · 13 host data · 14 key binding · 15 session binding · 16 this instance\n\nExamples:\n  postern pod verify demo\n  postern pod verify demo --output json"
)]
pub(crate) struct Args {
    /// Name of the pod
    #[arg(value_name = "POD", value_parser = parse::<PodName>)]
    pod: PodName,
    #[command(flatten)]
    output: FormatArg,
}

/// In which order the tunnel checks; what stands before a failure has passed.
const CHECKED: [Check; 7] = [
    Check::VendorChain,
    Check::Tcb,
    Check::Measurement,
    Check::HostData,
    Check::KeyBinding,
    Check::Instance,
    Check::SessionBinding,
];

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let record = PodRecord::load(&owner.home, &args.pod)?;
    let plan = Plan::new(owner, &record)?;
    match plan.carry_out().await {
        Ok(verified) => {
            let results = passed(&verified.attested);
            let simulated = verified.attested.root_kind() == RootKind::Simulated;
            let mitigations = proven_mitigations(owner, &record, &verified.attested)?;
            let mut session = Session::begin(record, verified.stream, verified.attested).await?;
            session.pin(owner)?;
            print(&args.pod, &results, Some(Verdict { simulated, mitigations }), args.output.format)?;
            Ok(Exit::Done)
        }
        Err(error) => {
            let Some(failure) = error.check_failure() else { return Err(error.into_failure(&record)) };
            let check = failure.check();
            print(&args.pod, &up_to(failure), None, args.output.format)?;
            Err(Failure::new(Exit::Check(check), format!("pod {} is not verified", args.pod))
                .caused_by(format!("{check} failed"))
                .hint(hint(check, args.pod.as_str())))
        }
    }
}

/// What is known of a pod once every check has passed.
#[derive(Debug, Clone, Copy)]
struct Verdict {
    simulated: bool,
    mitigations: Option<Mitigations>,
}

/// What the measurement, which has passed, says of the pod's mitigations: they are in the command line. `None` when the
/// reference value was given as digits, which say nothing of what they are a digest of.
fn proven_mitigations(
    owner: &Owner,
    record: &PodRecord,
    attested: &Attested,
) -> Result<Option<Mitigations>, Failure> {
    match (record.measurements.is_empty(), record.shape) {
        (false, Some(shape)) => Ok(Some(shape.mitigations)),
        _ => {
            let measurement = attested.appraisal().report().measurement;
            Ok(TrustStore::load(&owner.home)?.mitigations(&measurement))
        }
    }
}

/// One check and what became of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CheckResult {
    check: Check,
    /// `None`: not reached.
    passed: Option<bool>,
    detail: String,
}

pub(super) fn passed(attested: &Attested) -> Vec<CheckResult> {
    let result = |(check, detail): &(Check, String)| CheckResult {
        check: *check,
        passed: Some(true),
        detail: detail.clone(),
    };
    attested.checks().iter().map(result).collect()
}

fn up_to(failure: &CheckFailure) -> Vec<CheckResult> {
    let failed = failure.check();
    // A certificate that cannot be read comes before everything else.
    let nothing_read = matches!(failure, CheckFailure::Certificate(_));
    let position = |check: Check| CHECKED.iter().position(|known| *known == check);
    let result = |&check: &Check| {
        if check == failed {
            return CheckResult { check, passed: Some(false), detail: chain(failure) };
        }
        let before = !nothing_read && position(check) < position(failed);
        CheckResult {
            check,
            passed: before.then_some(true),
            detail: if before { String::new() } else { "not checked".into() },
        }
    };
    Check::ALL.iter().map(result).collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    // The outermost says only that a check failed, which the mark says already.
    match error.source() {
        None => error.to_string(),
        Some(source) => {
            let mut text = source.to_string();
            let mut next = source.source();
            while let Some(error) = next {
                text.push_str(": ");
                text.push_str(&error.to_string());
                next = error.source();
            }
            text
        }
    }
}

pub(super) fn json(results: &[CheckResult]) -> serde_json::Value {
    let checks = results.iter().map(|result| {
        let outcome = match result.passed {
            Some(true) => "passed",
            Some(false) => "failed",
            None => "not checked",
        };
        json!({"check": result.check.as_str(), "result": outcome, "detail": result.detail})
    });
    checks.collect()
}

pub(super) fn lines(results: &[CheckResult]) -> String {
    let mut out = String::new();
    for result in results {
        let mark = match result.passed {
            Some(passed) => mark(passed),
            None => "-",
        };
        let line = format!("  {mark} {:<16} {}", result.check.as_str(), text::clean(&result.detail));
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A line for people; it is no check, it says what the measurement has shown.
pub(super) fn mitigations_line(mitigations: Option<Mitigations>) -> String {
    let (mark, says) = match mitigations {
        Some(Mitigations::On) => (mark(true), "on"),
        Some(Mitigations::Off) => (
            "!",
            "OFF, in the measured command line: processes of this pod can read each other through the CPU",
        ),
        None => ("-", "not known: the reference value was given as digits"),
    };
    format!("  {mark} {:<16} {says}\n", "mitigations")
}

fn print(
    pod: &PodName,
    results: &[CheckResult],
    verdict: Option<Verdict>,
    format: Format,
) -> Result<(), Failure> {
    let verified = verdict.is_some();
    let simulated = verdict.map(|verdict| verdict.simulated);
    let mitigations = verdict.map(|verdict| verdict.mitigations);
    if format == Format::Json {
        return output::json(&json!({
            "pod": pod,
            "verified": verified,
            "simulated": simulated,
            "mitigations": mitigations,
            "checks": json(results),
        }));
    }
    let end = match simulated {
        Some(true) => {
            format!("pod {pod} is verified. SIMULATED TEE: every step is real, the protection is not\n")
        }
        Some(false) => format!("pod {pod} is verified\n"),
        None => String::new(),
    };
    let mitigations = mitigations.map(mitigations_line).unwrap_or_default();
    output::print(&format!("{}{mitigations}{end}", lines(results)))
}

#[cfg(test)]
mod tests {
    use postern_tunnel::InstanceKey;

    use super::*;

    #[test]
    fn what_comes_before_a_failure_has_passed_and_the_rest_is_open() {
        let key = InstanceKey::of_spki(b"a");
        let results = up_to(&CheckFailure::Instance { expected: key, found: key });
        let outcome: Vec<_> = results.iter().map(|result| result.passed).collect();
        let passed = Some(true);
        assert_eq!(outcome, [passed, passed, passed, passed, passed, None, Some(false)]);
    }

    #[test]
    fn every_check_has_its_place() {
        for check in Check::ALL {
            assert!(CHECKED.contains(&check));
        }
    }
}
