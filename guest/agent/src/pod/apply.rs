//! `apply`: the owner declares containers. Nothing is started by it; a host's trigger may start those that say so.
//!
//! A container of the same name that exists already keeps the specification it was made with until it is removed.

use std::collections::BTreeSet;

use postern_model::{ContainerName, ContainerSpec, OperationKind};
use postern_policy::{Declared, Permit};

use super::{
    PodError,
    driver::{Driver, MAX_CONTAINERS},
};

impl Driver {
    pub(super) fn apply(
        &mut self,
        permit: &Permit,
        specs: Vec<ContainerSpec>,
    ) -> Result<Vec<ContainerName>, PodError> {
        self.check(permit, OperationKind::Apply, Declared::No)?;
        let names: Vec<_> = specs.iter().map(|spec| spec.name.clone()).collect();
        let distinct: BTreeSet<_> = names.iter().collect();
        if distinct.len() != names.len() {
            return Err(PodError::Invalid("two containers of the manifest have the same name"));
        }
        let fresh = distinct.into_iter().filter(|name| !self.manifest.contains_key(*name)).count();
        if self.manifest.len() + fresh > MAX_CONTAINERS {
            return Err(PodError::TooMany { what: "declared containers", limit: MAX_CONTAINERS });
        }
        for spec in specs {
            self.events.tell("declare", spec.name.as_str());
            self.manifest.insert(spec.name.clone(), spec);
        }
        self.publish();
        Ok(names)
    }
}
