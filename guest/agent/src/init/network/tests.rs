//! Which network values the guest takes from the host, and that both configurators do what they say.

use std::net::IpAddr;

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
};

use super::{channel::Channel, *};

const CARD: &str = "02:00:00:00:00:01";

fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

fn config(text: &str, addresses: &[(&str, u32)]) -> InterfaceConfig {
    InterfaceConfig {
        hardware_address: CARD.parse().unwrap(),
        name: name(text),
        addresses: addresses.iter().map(|(a, length)| InterfaceAddress::parse(a, *length).unwrap()).collect(),
        mtu: Some(Mtu::new(1400).unwrap()),
        arp: true,
    }
}

fn gateway(interface: &str, address: &str) -> Route {
    Route::parse(interface, "", address, "").unwrap()
}

mod values {
    use super::*;

    #[test]
    fn names() {
        for good in ["eth0", "e", "enp0s1", "eth0.100", "a-b_c", "abcdefghijklmno"] {
            assert_eq!(good.parse::<InterfaceName>().unwrap().as_str(), good);
        }
        for bad in ["", "abcdefghijklmnop", "0eth", "../x", "eth/0", "eth 0", "eth\n", "é", ".", "-a", "%d"]
        {
            assert!(bad.parse::<InterfaceName>().is_err(), "{bad:?}");
        }
        for reserved in ["lo", "all", "default"] {
            assert_eq!(reserved.parse::<InterfaceName>(), Err(NetworkValueError::Loopback));
        }
    }

    #[test]
    fn hardware_addresses() {
        let text = "52:54:00:ab:CD:ef";
        assert_eq!(text.parse::<HardwareAddress>().unwrap().to_string(), text.to_lowercase());
        for bad in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:ef:00",
            "5:54:00:ab:cd:ef",
            "52-54-00-ab-cd-ef",
            "+2:54:00:ab:cd:ef",
        ] {
            assert_eq!(bad.parse::<HardwareAddress>(), Err(NetworkValueError::HardwareAddress), "{bad:?}");
        }
        for group in ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"] {
            assert_eq!(group.parse::<HardwareAddress>(), Err(NetworkValueError::NotAStation), "{group:?}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(InterfaceAddress::parse("10.0.2.15", 24).unwrap().to_string(), "10.0.2.15/24");
        assert_eq!(InterfaceAddress::parse("fd00::1", 64).unwrap().to_string(), "fd00::1/64");
        // What would turn traffic that is meant for this guest, or for many, over to the network.
        for stolen in [
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ] {
            assert!(
                matches!(InterfaceAddress::parse(stolen, 8), Err(NetworkValueError::UnusableAddress(_))),
                "{stolen}"
            );
        }
        for (address, length) in [("10.0.0.1", 0), ("10.0.0.1", 33), ("fd00::1", 129), ("10.0.0.1", u32::MAX)]
        {
            assert!(matches!(
                InterfaceAddress::parse(address, length),
                Err(NetworkValueError::PrefixLength { .. })
            ));
        }
        assert_eq!(InterfaceAddress::parse("10.0.0.1/24", 24), Err(NetworkValueError::NotAnAddress));
    }

    #[test]
    fn mtus() {
        assert_eq!(Mtu::new(1500).unwrap().bytes(), 1500);
        for bad in [0, 575, 65536, u64::MAX] {
            assert_eq!(Mtu::new(bad), Err(NetworkValueError::Mtu(bad)));
        }
    }

    #[test]
    fn routes() {
        let all = ["", "default", "0.0.0.0/0"].map(|d| Route::parse("eth0", d, "10.0.2.2", "").unwrap());
        assert!(all.iter().all(|route| route.destination().is_none() && route.is_ipv4()));
        let net = Route::parse("eth0", "10.1.0.0/16", "", "10.0.2.15").unwrap();
        assert_eq!(net.destination(), Some((IpAddr::from([10, 1, 0, 0]), 16)));
        assert!(!Route::parse("eth0", "fd00::/8", "fe80::1", "").unwrap().is_ipv4());
        assert_eq!(Route::parse("eth0", "10.0.0.7", "", "").unwrap().destination().unwrap().1, 32);
    }

    #[test]
    fn refused_routes() {
        use NetworkValueError as E;
        let refused = |destination: &str, gateway: &str, source: &str| {
            Route::parse("eth0", destination, gateway, source).unwrap_err()
        };
        assert!(matches!(refused("127.0.0.0/8", "10.0.2.2", ""), E::Destination(_)));
        assert!(matches!(refused("224.0.0.0/4", "", ""), E::Destination(_)));
        assert_eq!(refused("10.1.2.3/16", "", ""), E::HostBits);
        assert_eq!(refused("10.0.0.0/8", "fd00::1", ""), E::MixedFamilies);
        assert_eq!(refused("", "10.0.2.2", "fd00::1"), E::MixedFamilies);
        assert_eq!(refused("", "", ""), E::EmptyRoute);
        assert!(matches!(refused("", "127.0.0.1", ""), E::UnusableAddress(_)));
        assert!(matches!(refused("10.0.0.0/33", "", ""), E::PrefixLength { length: 33, limit: 32 }));
        assert!(matches!(refused("10.0.0.0/-1", "", ""), E::PrefixLength { .. }));
        // All of IPv4, but not as a default route.
        assert!(matches!(refused("10.0.0.0/0", "", ""), E::PrefixLength { length: 0, .. }));
        assert!(Route::parse("lo", "10.0.0.0/8", "", "").is_err());
    }
}

/// What both configurators promise; each runs it over a network with one card, `CARD`.
async fn keeps_its_promises(network: &dyn NetworkConfigurator) {
    // Nothing can be routed over what is not there.
    let early = network.update_routes(vec![gateway("eth7", "10.0.2.2")]).await;
    assert!(matches!(early, Err(NetworkError::NoSuchInterface(_))), "{early:?}");

    let wanted = config("eth7", &[("10.0.2.15", 24), ("fd00::15", 64)]);
    assert_eq!(network.update_interface(wanted.clone()).await.unwrap(), wanted);
    assert_eq!(network.interfaces().await.unwrap(), std::slice::from_ref(&wanted));

    let routes =
        vec![gateway("eth7", "10.0.2.2"), Route::parse("eth7", "10.9.0.0/16", "10.0.2.3", "").unwrap()];
    assert_eq!(network.update_routes(routes.clone()).await.unwrap(), routes);
    let found = network.routes().await.unwrap();
    assert!(found.len() == 2 && routes.iter().all(|route| found.contains(route)), "{found:?}");

    // The same again changes nothing, and other routes replace these.
    network.update_interface(wanted).await.unwrap();
    assert_eq!(network.routes().await.unwrap().len(), 2);
    let other = vec![gateway("eth7", "10.0.2.9")];
    network.update_routes(other.clone()).await.unwrap();
    assert_eq!(network.routes().await.unwrap(), other);

    // Other addresses replace these, and a name can change.
    let renamed = config("net0", &[("10.0.3.1", 24)]);
    network.update_interface(renamed.clone()).await.unwrap();
    assert_eq!(network.interfaces().await.unwrap(), std::slice::from_ref(&renamed));

    let addresses = vec![InterfaceAddress::parse("10.0.0.1", 24).unwrap(); MAX_ADDRESSES + 1];
    let crowded = network.update_interface(InterfaceConfig { addresses, ..config("net0", &[]) }).await;
    assert!(matches!(crowded, Err(NetworkError::TooMany { what: "addresses", .. })), "{crowded:?}");
    let crowded = network.update_routes(vec![gateway("net0", "10.0.3.2"); MAX_ROUTES + 1]).await;
    assert!(matches!(crowded, Err(NetworkError::TooMany { what: "routes", .. })), "{crowded:?}");
}

/// IPv6 only on an interface that has such an address, and again when it gets one.
async fn speaks_no_more_than_it_was_told(network: &dyn NetworkConfigurator) {
    let switch = || std::fs::read_to_string("/proc/sys/net/ipv6/conf/net0/disable_ipv6");
    for (address, bits, disabled) in [("10.0.3.1", 24, "1"), ("fd00::16", 64, "0"), ("10.0.3.1", 24, "1")] {
        let wanted = config("net0", &[(address, bits)]);
        assert_eq!(network.update_interface(wanted.clone()).await.unwrap(), wanted);
        assert_eq!(network.interfaces().await.unwrap(), std::slice::from_ref(&wanted));
        // A kernel without IPv6 has no switch.
        assert!(switch().is_ok_and(|text| text.trim() == disabled) || switch().is_err(), "{address}");
    }
}

#[tokio::test]
async fn the_recorder() {
    let network = Recorder::default();
    keeps_its_promises(&network).await;
    for n in 2..=MAX_INTERFACES {
        let hardware_address = format!("02:00:00:00:00:{n:02x}").parse().unwrap();
        let next = InterfaceConfig { hardware_address, ..config(&format!("e{n}"), &[]) };
        network.update_interface(next).await.unwrap();
    }
    let hardware_address = "02:00:00:00:01:00".parse().unwrap();
    let taken = InterfaceConfig { hardware_address, ..config("e2", &[]) };
    assert!(matches!(network.update_interface(taken).await, Err(NetworkError::NameTaken(_))));
    let one_more = InterfaceConfig { hardware_address, ..config("e99", &[]) };
    assert!(matches!(network.update_interface(one_more).await, Err(NetworkError::TooMany { .. })));
}

/// In a network namespace of its own, with a card made for it. Needs the right to make one, which tests of the guest
/// have anyway.
#[test]
fn the_kernel() {
    let tested = std::thread::spawn(|| {
        #[expect(
            deprecated,
            reason = "deprecated for what it can do to file descriptors; this is the network alone"
        )]
        let apart = rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET);
        if apart.is_err() {
            eprintln!("skipped: this process may not make network namespaces");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let network = Netlink::default();
            network.start().await.unwrap();
            assert_eq!(network.interfaces().await.unwrap(), []);
            make_card().await;
            let absent: HardwareAddress = "02:00:00:00:00:02".parse().unwrap();
            let other = InterfaceConfig { hardware_address: absent, ..config("eth7", &[]) };
            let refused = network.update_interface(other).await;
            assert!(
                matches!(refused, Err(NetworkError::NoSuchHardwareAddress(a)) if a == absent),
                "{refused:?}"
            );
            keeps_its_promises(&network).await;
            speaks_no_more_than_it_was_told(&network).await;
            keeps_what_network_plugins_add(&network).await;
            // Loopback is up and still the guest's own.
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        });
    });
    tested.join().unwrap();
}

/// A neighbour set by hand, an interface without ARP, a gateway that only the flag says is on the link, a route's MTU.
async fn keeps_what_network_plugins_add(network: &Netlink) {
    let interface = InterfaceConfig { arp: false, ..config("eth9", &[("10.0.2.15", 24)]) };
    network.update_interface(interface.clone()).await.unwrap();
    assert_eq!(network.interfaces().await.unwrap(), [interface]);
    let far = gateway("eth9", "169.254.1.1").with_on_link(true).with_mtu(Some(Mtu::new(1300).unwrap()));
    network.update_routes(vec![far.clone()]).await.unwrap();
    assert_eq!(network.routes().await.unwrap(), [far]);
    let neighbor = Neighbor {
        interface: name("eth9"),
        address: "169.254.1.1".parse().unwrap(),
        hardware_address: "02:00:00:00:00:09".parse().unwrap(),
    };
    for _ in 0..2 {
        network.add_neighbors(vec![neighbor.clone()]).await.unwrap();
    }
    let neighbors = std::fs::read_to_string("/proc/thread-self/net/arp").unwrap();
    assert!(
        neighbors.lines().any(|line| line.starts_with("169.254.1.1 ") && line.contains("02:00:00:00:00:09")),
        "{neighbors}"
    );
    let absent = Neighbor { interface: name("eth8"), ..neighbor };
    let refused = network.add_neighbors(vec![absent]).await;
    assert!(matches!(refused, Err(NetworkError::NoSuchInterface(_))), "{refused:?}");
}

/// A bridge without ports: Ethernet, and in kernels that have no dummy device.
async fn make_card() {
    let mut card = LinkMessage::default();
    card.attributes = vec![
        LinkAttribute::IfName("card".into()),
        LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
    ];
    let mut channel = Channel::open().unwrap();
    channel.put(RouteNetlinkMessage::NewLink(card)).await.unwrap();
}
