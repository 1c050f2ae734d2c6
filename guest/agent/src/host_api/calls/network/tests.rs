//! What the checks let through, and what they keep from the host.

use postern_api::host;
use proptest::prelude::*;
use prost::Message as _;

use super::{Brought, checks};

fn address(address: &str, mask: &str) -> host::IpAddress {
    host::IpAddress { family: 0, address: address.into(), mask: mask.into() }
}

fn eth0() -> host::Interface {
    host::Interface {
        device: "eth0".into(),
        name: "eth0".into(),
        ip_addresses: vec![address("10.0.2.15", "24"), address("fd00::15", "64")],
        mtu: 1500,
        hw_addr: "52:54:00:12:34:56".into(),
        ..Default::default()
    }
}

fn interface_ok(change: impl FnOnce(&mut host::Interface)) -> bool {
    let mut wire = eth0();
    change(&mut wire);
    checks::interface(&wire).is_ok()
}

fn default_route() -> host::Route {
    host::Route { gateway: "10.0.2.2".into(), device: "eth0".into(), ..Default::default() }
}

fn route_ok(change: impl FnOnce(&mut host::Route)) -> bool {
    let mut wire = default_route();
    change(&mut wire);
    checks::routes(&[wire]).is_ok()
}

fn neighbor_ok(change: impl FnOnce(&mut host::ArpNeighbor)) -> bool {
    let mut wire = host::ArpNeighbor {
        to_ip_address: Some(address("10.0.2.2", "")),
        device: "eth0".into(),
        lladdr: "52:55:0a:00:02:02".into(),
        state: 0x80,
        flags: 0,
    };
    change(&mut wire);
    checks::neighbors(&[wire]).is_ok()
}

#[test]
fn takes_what_a_network_plugin_makes() {
    assert!(interface_ok(|_| {}));
    assert!(interface_ok(|i| i.raw_flags = 0x80));
    assert!(interface_ok(|i| i.mtu = 0));
    assert!(route_ok(|_| {}));
    assert!(route_ok(|r| r.dest = "0.0.0.0/0".into()));
    assert!(route_ok(|r| {
        (r.dest, r.gateway, r.scope) = ("169.254.1.1/32".into(), String::new(), 253);
    }));
    assert!(route_ok(|r| (r.dest, r.source) = ("10.96.0.0/12".into(), "10.0.2.15".into())));
    assert!(neighbor_ok(|_| {}));
}

#[test]
fn keeps_loopback_from_the_host() {
    for name in
        ["lo", "lo0", "loop", "all", "default", "", ".", "..", "a/b", "eth0\0", "sixteen-letters-", "-e"]
    {
        assert!(!interface_ok(|i| i.name = name.into()), "{name:?}");
        assert!(!route_ok(|r| r.device = name.into()), "{name:?}");
        assert!(!neighbor_ok(|n| n.device = name.into()), "{name:?}");
    }
    for (ip, mask) in [
        ("127.0.0.1", "8"),
        ("127.9.9.9", "32"),
        ("::1", "128"),
        ("::2", "64"),
        ("::ffff:127.0.0.1", "128"),
        ("126.0.0.1", "7"),
        ("1.2.3.4", "1"),
        ("0.0.0.0", "24"),
        ("10.0.0.1", "0"),
        ("10.0.0.1", "33"),
        ("10.0.0.1", "-1"),
        ("10.0.0.1", ""),
        ("224.0.0.1", "24"),
        ("255.255.255.255", "32"),
        ("169.254.169.254", "32"),
        ("fd00:ec2::254", "128"),
        ("host", "24"),
    ] {
        assert!(!interface_ok(|i| i.ip_addresses = vec![address(ip, mask)]), "{ip}/{mask}");
    }
    for dest in [
        "127.0.0.0/8",
        "127.0.0.1",
        "::1/128",
        "126.0.0.0/7",
        "0.0.0.0/1",
        "::/1",
        "169.254.169.254/32",
        "x",
        "10.0.0.0/33",
    ] {
        assert!(!route_ok(|r| (r.dest, r.gateway) = (dest.into(), String::new())), "{dest}");
    }
    for ip in ["127.0.0.1", "::1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "x"] {
        assert!(!route_ok(|r| r.gateway = ip.into()), "{ip}");
        assert!(!route_ok(|r| r.source = ip.into()), "{ip}");
        assert!(!neighbor_ok(|n| n.to_ip_address = Some(address(ip, ""))), "{ip}");
    }
}

#[test]
fn refuses_flags_scopes_states_and_sizes() {
    assert!(!interface_ok(|i| i.raw_flags = 0x100));
    assert!(!interface_ok(|i| i.mtu = 575));
    assert!(!interface_ok(|i| i.mtu = 65536));
    assert!(!interface_ok(|i| i.hw_addr = "00:00:00:00:00:00".into()));
    assert!(!interface_ok(|i| i.hw_addr = "01:00:5e:00:00:01".into()));
    assert!(!interface_ok(|i| i.hw_addr.clear()));
    assert!(!interface_ok(|i| i.ip_addresses = vec![address("10.0.2.15", "24"); 10_000]));
    assert!(!route_ok(|r| r.scope = 254));
    assert!(!route_ok(|r| r.flags = 1));
    assert!(!route_ok(|r| r.mtu = 1));
    assert!(!route_ok(|r| (r.dest, r.gateway) = ("10.0.0.0/8".into(), "fd00::1".into())));
    assert!(checks::routes(&vec![default_route(); 65]).is_err());
    assert!(!neighbor_ok(|n| n.state = 2));
    assert!(!neighbor_ok(|n| n.flags = 1));
    assert!(!neighbor_ok(|n| n.lladdr = "ff:ff:ff:ff:ff:ff".into()));
    assert!(!neighbor_ok(|n| n.to_ip_address = None));
}

#[test]
fn an_interface_keeps_its_name() {
    let mut brought = Brought::default();
    assert!(brought.admits(&eth0()).is_ok());
    brought.put_interface(eth0());
    assert!(brought.admits(&eth0()).is_ok());
    assert!(brought.admits(&host::Interface { name: "eth1".into(), ..eth0() }).is_err());
    let other = host::Interface { hw_addr: "52:54:00:12:34:57".into(), ..eth0() };
    assert!(brought.admits(&other).is_err());
    brought.put_interface(eth0());
    assert_eq!(brought.interfaces.len(), 1);
    for number in 1..checks::MAX_INTERFACES {
        brought.put_interface(host::Interface {
            name: format!("eth{number}"),
            hw_addr: format!("52:54:00:12:35:{number:02x}"),
            ..eth0()
        });
    }
    let ninth = host::Interface { name: "net9".into(), hw_addr: "52:54:00:12:36:00".into(), ..eth0() };
    assert!(brought.admits(&ninth).is_err());
}

proptest! {
    #[test]
    fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..256)) {
        if let Ok(wire) = host::Interface::decode(&*body) {
            let _ = checks::interface(&wire);
        }
        if let Ok(wire) = host::Routes::decode(&*body) {
            let _ = checks::routes(&wire.routes);
        }
        if let Ok(wire) = host::ArpNeighbors::decode(&*body) {
            let _ = checks::neighbors(&wire.arp_neighbors);
        }
    }

    #[test]
    fn checks_never_panic(text in ".{0,40}", number: u64, flags: u32) {
        interface_ok(|i| i.name.clone_from(&text));
        interface_ok(|i| i.hw_addr.clone_from(&text));
        interface_ok(|i| i.ip_addresses = vec![address(&text, &text)]);
        interface_ok(|i| (i.mtu, i.raw_flags) = (number, flags));
        route_ok(|r| r.dest.clone_from(&text));
        route_ok(|r| (r.gateway, r.scope) = (text.clone(), flags));
        neighbor_ok(|n| n.lladdr.clone_from(&text));
    }

    #[test]
    fn no_accepted_network_holds_loopback(bits: u32, prefix in 0u8..=32) {
        let ip = std::net::Ipv4Addr::from_bits(bits);
        if interface_ok(|i| i.ip_addresses = vec![address(&ip.to_string(), &prefix.to_string())]) {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            prop_assert_ne!(bits & mask, 0x7f00_0001 & mask);
        }
    }
}
