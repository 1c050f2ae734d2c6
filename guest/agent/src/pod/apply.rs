//! `apply`: the owner declares containers. They run now, and a host's trigger may start those again that say so.
//!
//! What can be refused is refused before anything is done. A declared container that exists already with the same
//! specification is kept.

use std::collections::BTreeSet;

use postern_model::{ContainerName, ContainerSpec, ContainerState, OperationKind};
use postern_policy::{Declared, Permit};
use tokio::sync::oneshot;

use super::{
    PodError,
    command::{Done, Reply},
    driver::{Driver, MAX_CONTAINERS, Slot},
};

impl Driver {
    pub(super) fn apply(
        &mut self,
        permit: &Permit,
        specs: Vec<ContainerSpec>,
        reply: Reply<Vec<ContainerName>>,
    ) {
        if let Err(error) = self.may_apply(permit, &specs) {
            return drop(reply.send(Err(error)));
        }
        let names: Vec<_> = specs.iter().map(|spec| spec.name.clone()).collect();
        let mut making = Vec::new();
        for spec in specs {
            self.events.tell("declare", spec.name.as_str());
            self.manifest.insert(spec.name.clone(), spec.clone());
            if !self.slots.contains_key(&spec.name) {
                let (created, made) = oneshot::channel();
                self.create(spec, created);
                making.push(made);
            }
        }
        self.publish();
        let done = self.watcher.done.clone();
        tokio::spawn(async move {
            let mut result = Ok(());
            for made in making {
                result = result.and(made.await.unwrap_or(Err(PodError::Ended)));
            }
            let _ = done.send(Done::Applied { names, result, reply }).await;
        });
    }

    fn may_apply(&self, permit: &Permit, specs: &[ContainerSpec]) -> Result<(), PodError> {
        self.check(permit, OperationKind::Apply, Declared::No)?;
        let names: BTreeSet<_> = specs.iter().map(|spec| &spec.name).collect();
        if names.len() != specs.len() {
            return Err(PodError::Invalid("two containers of the manifest have the same name"));
        }
        let fresh = names.iter().filter(|name| !self.manifest.contains_key(**name)).count();
        if self.manifest.len() + fresh > MAX_CONTAINERS {
            return Err(PodError::TooMany { what: "declared containers", limit: MAX_CONTAINERS });
        }
        for spec in specs {
            match self.slots.get(&spec.name) {
                None => drop(self.engine.image(&spec.image)?),
                Some(Slot::Making) => {
                    return Err(PodError::Busy { container: spec.name.clone(), doing: "created" });
                }
                Some(Slot::Made(container)) if *container.view.spec == *spec => {}
                Some(Slot::Made(_)) => return Err(PodError::Exists(spec.name.clone())),
            }
        }
        Ok(())
    }

    /// The second half: all of them exist, so those that do not run are started.
    pub(super) fn start_declared(
        &mut self,
        names: Vec<ContainerName>,
        result: Result<(), PodError>,
        reply: Reply<Vec<ContainerName>>,
    ) {
        if let Err(error) = result {
            return drop(reply.send(Err(error)));
        }
        let mut starting = Vec::new();
        for name in &names {
            let runs = |state| matches!(state, ContainerState::Running | ContainerState::Paused);
            if matches!(self.slots.get(name), Some(Slot::Made(container)) if !runs(container.view.state)) {
                let (started, start) = oneshot::channel();
                self.start(name, started);
                starting.push(start);
            }
        }
        tokio::spawn(async move {
            let mut result = Ok(names);
            for start in starting {
                if let Err(error) = start.await.unwrap_or(Err(PodError::Ended)) {
                    result = result.and(Err(error));
                }
            }
            let _ = reply.send(result);
        });
    }
}
