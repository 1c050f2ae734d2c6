//! Which network values the guest takes from the host, and that both configurators do what they say.

use std::net::IpAddr;

use super::*;

fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}
