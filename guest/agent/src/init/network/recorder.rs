//! A network that only exists on paper, for an agent that runs as an ordinary process: it accepts what the real
//! one would accept and answers with what it was given, and touches no interface of the machine.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::{FutureExt, future::BoxFuture};

use super::{
    InterfaceConfig, MAX_ADDRESSES, MAX_INTERFACES, MAX_ROUTES, Neighbor, NetworkConfigurator, NetworkError,
    Route,
};

#[derive(Debug, Default)]
pub struct Recorder {
    network: Mutex<Network>,
}

#[derive(Debug, Default)]
struct Network {
    interfaces: Vec<InterfaceConfig>,
    routes: Vec<Route>,
}

impl Recorder {
    fn network(&self) -> MutexGuard<'_, Network> {
        // Each change replaces whole values, so what a panicking holder left is consistent.
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record_interface(&self, config: InterfaceConfig) -> Result<InterfaceConfig, NetworkError> {
        if config.addresses.len() > MAX_ADDRESSES {
            return Err(NetworkError::TooMany { what: "addresses", limit: MAX_ADDRESSES });
        }
        let mut network = self.network();
        let known = network.interfaces.iter().position(|i| i.hardware_address == config.hardware_address);
        if network.interfaces.iter().enumerate().any(|(n, i)| Some(n) != known && i.name == config.name) {
            return Err(NetworkError::NameTaken(config.name));
        }
        match known {
            Some(at) => network.interfaces[at] = config.clone(),
            None if network.interfaces.len() == MAX_INTERFACES => {
                return Err(NetworkError::TooMany { what: "interfaces", limit: MAX_INTERFACES });
            }
            None => network.interfaces.push(config.clone()),
        }
        Ok(config)
    }

    fn record_routes(&self, routes: Vec<Route>) -> Result<Vec<Route>, NetworkError> {
        if routes.len() > MAX_ROUTES {
            return Err(NetworkError::TooMany { what: "routes", limit: MAX_ROUTES });
        }
        let mut network = self.network();
        if let Some(route) =
            routes.iter().find(|r| !network.interfaces.iter().any(|i| i.name == *r.interface()))
        {
            return Err(NetworkError::NoSuchInterface(route.interface().clone()));
        }
        network.routes = routes.clone();
        Ok(routes)
    }
}

impl NetworkConfigurator for Recorder {
    fn start(&self) -> BoxFuture<'_, Result<(), NetworkError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn update_interface(
        &self,
        config: InterfaceConfig,
    ) -> BoxFuture<'_, Result<InterfaceConfig, NetworkError>> {
        std::future::ready(self.record_interface(config)).boxed()
    }

    fn update_routes(&self, routes: Vec<Route>) -> BoxFuture<'_, Result<Vec<Route>, NetworkError>> {
        std::future::ready(self.record_routes(routes)).boxed()
    }

    fn add_neighbors(&self, neighbors: Vec<Neighbor>) -> BoxFuture<'_, Result<(), NetworkError>> {
        let network = self.network();
        let unknown =
            neighbors.iter().find(|n| !network.interfaces.iter().any(|i| i.name == n.interface)).cloned();
        let outcome = unknown.map_or(Ok(()), |n| Err(NetworkError::NoSuchInterface(n.interface)));
        std::future::ready(outcome).boxed()
    }

    fn interfaces(&self) -> BoxFuture<'_, Result<Vec<InterfaceConfig>, NetworkError>> {
        std::future::ready(Ok(self.network().interfaces.clone())).boxed()
    }

    fn routes(&self) -> BoxFuture<'_, Result<Vec<Route>, NetworkError>> {
        std::future::ready(Ok(self.network().routes.clone())).boxed()
    }
}
