//! `Containers.Stats`: one sample, or one per interval for as long as the caller listens.

use std::time::Duration;

use futures_util::stream;
use postern_api::owner::{StatsRequest, StatsResponse};
use postern_model::{ContainerName, OperationKind};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::Status;

use super::{
    service::Answers,
    session::{Session, container},
    status, wire,
};

/// Sampling more often would measure the sampling.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

struct Sampler {
    session: Session,
    names: Vec<ContainerName>,
    ticks: Interval,
}

pub(super) async fn stats(
    session: &Session,
    request: StatsRequest,
) -> Result<Answers<StatsResponse>, Status> {
    let names = request.containers.into_iter().map(container).collect::<Result<Vec<_>, _>>()?;
    let first = sample(session, &names).await?;
    if request.interval_millis == 0 {
        return Ok(Box::pin(stream::iter([Ok(first)])));
    }
    let every = Duration::from_millis(request.interval_millis).clamp(MIN_INTERVAL, MAX_INTERVAL);
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    let sampler = Sampler { session: session.clone(), names, ticks };
    let state = (Some(first), Some(sampler));
    Ok(Box::pin(stream::unfold(state, |(first, sampler)| async move {
        let mut sampler = sampler?;
        if let Some(first) = first {
            return Some((Ok(first), (None, Some(sampler))));
        }
        sampler.ticks.tick().await;
        match sample(&sampler.session, &sampler.names).await {
            Ok(response) => Some((Ok(response), (None, Some(sampler)))),
            Err(status) => Some((Err(status), (None, None))),
        }
    })))
}

async fn sample(session: &Session, names: &[ContainerName]) -> Result<StatsResponse, Status> {
    let permit = session.permit(OperationKind::Stats)?;
    let samples = session.pod().stats(permit, names).await.map_err(status::pod)?;
    Ok(StatsResponse { containers: samples.into_iter().map(wire::stats).collect() })
}
