//! One call for each of several containers: one tunnel per pod, a line per success, and every failure told.

use crate::{
    door::{Intent, Owner, Session},
    exit::Exit,
    failure::Failure,
    output,
    target::Target,
};

/// Calls `act` for every target in order; prints what it returns. Fails with the first failure's code, after all were tried.
pub(super) async fn each(
    owner: &Owner,
    targets: &[Target],
    intent: Intent,
    mut act: impl AsyncFnMut(&Session, &Target) -> Result<String, Failure>,
) -> Result<Exit, Failure> {
    let mut session: Option<Session> = None;
    let mut outcome = Ok(Exit::Done);
    for target in targets {
        let current = match session.take() {
            Some(current) if current.name() == target.pod.as_str() => Ok(current),
            _ => Session::open(owner, &target.pod, intent).await,
        };
        let done = match current {
            Ok(current) => {
                let done = act(&current, target).await;
                session = Some(current);
                done
            }
            Err(failure) => Err(failure),
        };
        match (done, &outcome) {
            (Ok(said), _) => output::line(&said)?,
            // The last failure is printed by whoever ends the program.
            (Err(failure), Ok(_)) => outcome = Err(failure),
            (Err(failure), Err(_)) => failure.print(),
        }
    }
    outcome
}
