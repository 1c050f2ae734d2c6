//! The golden matrix: every caller, operation and phase, compared with the reviewed file.
//!
//! To write the file anew after a change of rules, and then read its diff:
//! `POSTERN_REGENERATE=1 cargo test -p postern-policy --test matrix`.

#![allow(clippy::panic)]

use std::{env, fmt::Write as _, fs, path::Path};

use postern_model::{Caller, OperationKind, Phase};
use postern_policy::{Declared, Reason, decide};

const HEADER: &str = "\
# Who may do what, when. Four columns per caller: booting, ready, owned, released.
#   +  allowed                     d  allowed for a container that the owner has declared
#   p  refused: not in this phase  r  refused: not in this role
#   h  refused: never the host's   o  refused: never an owner's
# Compared by tests/matrix.rs, which also says how to write it anew.

";

fn cell(caller: Caller, operation: OperationKind, phase: Phase) -> char {
    let [undeclared, declared] = [Declared::No, Declared::Yes].map(|d| decide(caller, operation, phase, d));
    match (undeclared.map_err(|denial| denial.reason()), declared.map_err(|denial| denial.reason())) {
        (Ok(_), Ok(_)) => '+',
        (Err(Reason::NotDeclared), Ok(_)) => 'd',
        (Err(one), Err(two)) => {
            assert_eq!(
                one, two,
                "{caller} {operation} {phase}: a declaration may only turn a refusal into a grant"
            );
            match one {
                Reason::Phase { .. } => 'p',
                Reason::Role { .. } => 'r',
                Reason::HostNever => 'h',
                Reason::OwnerNever => 'o',
                Reason::NotDeclared => unreachable!("a declared container was refused as undeclared"),
            }
        }
        (one, two) => panic!("{caller} {operation} {phase}: {one:?} without a declaration, {two:?} with one"),
    }
}

fn matrix() -> String {
    let mut text = String::from(HEADER);
    let _ = write!(text, "{:<18}", "");
    for caller in Caller::ALL {
        let name = caller.to_string();
        let _ = write!(text, "  {:<8}", name.strip_prefix("owner:").unwrap_or(&name));
    }
    trim_line(&mut text);
    for &operation in OperationKind::ALL {
        let _ = write!(text, "{:<18}", operation.as_str());
        for caller in Caller::ALL {
            let cells = Phase::ALL.map(|phase| cell(caller, operation, phase).to_string()).join(" ");
            let _ = write!(text, "  {cells:<8}");
        }
        trim_line(&mut text);
    }
    text
}

fn trim_line(text: &mut String) {
    text.truncate(text.trim_end().len());
    text.push('\n');
}

#[test]
fn the_matrix_is_as_reviewed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/matrix.txt");
    let actual = matrix();
    if env::var_os("POSTERN_REGENERATE").is_some() {
        fs::write(&path, &actual).unwrap();
    }
    let reviewed = fs::read_to_string(&path).unwrap();
    for (actual, reviewed) in actual.lines().zip(reviewed.lines()) {
        assert_eq!(actual, reviewed, "authority has changed; see the head of this file");
    }
    assert_eq!(actual.lines().count(), reviewed.lines().count(), "operations have come or gone");
}
