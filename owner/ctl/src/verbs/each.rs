//! One call for each of several containers: one tunnel per pod, a line per success, and every failure told.

use futures_util::{StreamExt as _, stream};

use crate::{
    door::{Intent, Owner, Session},
    exit::Exit,
    failure::Failure,
    output,
    target::Target,
};

/// Calls that are under way at once: what waits for a grace does not make the others wait.
const AT_ONCE: usize = 16;

/// Calls `act` for every target and prints what it returns, in their order. Fails with the first failure's code, after all
/// were tried.
pub(super) async fn each(
    owner: &Owner,
    targets: &[Target],
    intent: Intent,
    act: impl AsyncFn(&Session, &Target) -> Result<String, Failure>,
) -> Result<Exit, Failure> {
    let mut calls = Vec::with_capacity(targets.len());
    let mut last: Option<Session> = None;
    for target in targets {
        let session = match &last {
            Some(session) if session.name() == target.pod.as_str() => Ok(session.clone()),
            _ => Session::open(owner, &target.pod, intent).await,
        };
        last = session.as_ref().ok().cloned();
        calls.push((session, target));
    }
    let act = &act;
    let mut done = stream::iter(calls)
        .map(async |(session, target)| match session {
            Ok(session) => act(&session, target).await,
            Err(failure) => Err(failure),
        })
        .buffered(AT_ONCE);
    let mut outcome = Ok(Exit::Done);
    while let Some(done) = done.next().await {
        match (done, &outcome) {
            (Ok(said), _) => output::line(&said)?,
            // The last failure is printed by whoever ends the program.
            (Err(failure), Ok(_)) => outcome = Err(failure),
            (Err(failure), Err(_)) => failure.print(),
        }
    }
    outcome
}
