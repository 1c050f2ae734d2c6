//! Init data survives its device, and every way to tamper with the device is refused by name.

use std::io::Write;

use proptest::prelude::*;

use super::*;

fn init_data() -> InitData {
    InitData {
        pod: "demo".parse().unwrap(),
        owner_ca_der: (0..=255).collect(),
        instance: [0x5a; 32],
        mode: Mode::Direct,
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn device_of(compressed: &[u8]) -> Vec<u8> {
    let mut device = MAGIC.to_vec();
    device.extend_from_slice(&(compressed.len() as u64).to_le_bytes());
    device.extend_from_slice(compressed);
    device
}

fn refused_text(change: impl FnOnce(String) -> String) -> InitDataError {
    let toml = change(encode(&init_data()).toml().to_owned());
    decode_device(&device_of(&gzip(toml.as_bytes()))).unwrap_err()
}

#[test]
fn a_device_reads_back() {
    let encoded = encode(&init_data());
    assert_eq!(encoded.device().len() % 512, 0);
    assert_eq!(decode_device(&encoded.device()).unwrap(), (init_data(), encoded.digest()));
    assert_eq!(EncodedInitData::from_toml(encoded.toml().as_bytes()).unwrap(), encoded);
}

#[test]
fn the_text_is_init_data_of_confidential_containers() {
    let encoded = encode(&init_data());
    let outer: toml::Table = encoded.toml().parse().unwrap();
    assert_eq!(outer["version"].as_str(), Some("0.1.0"));
    assert_eq!(outer["algorithm"].as_str(), Some("sha256"));
    let inner: toml::Table = outer["data"]["postern.toml"].as_str().unwrap().parse().unwrap();
    assert_eq!(inner["pod"].as_str(), Some("demo"));
}

#[test]
fn a_pod_has_one_owner() {
    assert_eq!(init_data().owners(), 1);
    let two = |text: String| {
        let pem = text[text.find(PEM_BEGIN).unwrap()..text.find(PEM_END).unwrap() + PEM_END.len()].to_owned();
        text.replace(&pem, &format!("{pem}\n{pem}"))
    };
    assert!(matches!(refused_text(two), InitDataError::Owners { found: 2 }));
}

#[test]
fn every_field_changes_the_digest() {
    let honest = encode(&init_data()).digest();
    let changes: [fn(&mut InitData); 3] = [
        |data| data.pod = "other".parse().unwrap(),
        |data| data.owner_ca_der[0] ^= 1,
        |data| data.instance[31] ^= 1,
    ];
    for change in changes {
        let mut changed = init_data();
        change(&mut changed);
        assert_ne!(encode(&changed).digest(), honest);
    }
}

#[test]
fn missing() {
    for device in [vec![], vec![0; 512]] {
        assert!(matches!(decode_device(&device), Err(InitDataError::Missing)));
    }
}

#[test]
fn wrong_magic() {
    let mut device = encode(&init_data()).device();
    device[0] = b'I';
    assert!(matches!(decode_device(&device), Err(InitDataError::Magic)));
    assert!(matches!(decode_device(b"init"), Err(InitDataError::Magic)));
}

#[test]
fn truncated_anywhere() {
    let device = device_of(&gzip(encode(&init_data()).toml().as_bytes()));
    for length in 1..device.len() {
        let error = decode_device(&device[..length]).unwrap_err();
        assert!(matches!(error, InitDataError::Truncated { .. } | InitDataError::Magic), "{length}: {error}");
    }
    let mut gzip = gzip(encode(&init_data()).toml().as_bytes());
    gzip.truncate(gzip.len() - 9);
    assert!(matches!(decode_device(&device_of(&gzip)), Err(InitDataError::Gzip(_))));
}

#[test]
fn doubled_device() {
    let device = encode(&init_data()).device();
    let doubled = [device.clone(), device].concat();
    assert!(matches!(decode_device(&doubled), Err(InitDataError::TrailingData)));
}

#[test]
fn doubled_gzip_member() {
    let member = gzip(encode(&init_data()).toml().as_bytes());
    for tail in [member.clone(), gzip(b""), vec![0], vec![0; 512]] {
        let doubled = [member.clone(), tail].concat();
        assert!(matches!(decode_device(&device_of(&doubled)), Err(InitDataError::TrailingMember)));
    }
}

#[test]
fn oversized() {
    let mut device = encode(&init_data()).device();
    device.resize(MAX_DEVICE + 512, 0);
    assert!(matches!(decode_device(&device), Err(InitDataError::TooLarge { what: "device", .. })));
    let mut device = MAGIC.to_vec();
    device.extend_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(decode_device(&device), Err(InitDataError::TooLarge { found: u64::MAX, .. })));
}

#[test]
fn gzip_bomb() {
    let bomb = device_of(&gzip(&vec![b' '; 256 << 20]));
    assert!(bomb.len() < MAX_DEVICE);
    assert!(matches!(decode_device(&bomb), Err(InitDataError::TooLarge { what: "init data", .. })));
}

#[test]
fn other_versions_algorithms_and_entries() {
    assert!(matches!(refused_text(|t| t.replace("0.1.0", "0.2.0")), InitDataError::Version(_)));
    assert!(matches!(refused_text(|t| t.replace("sha256", "sha384")), InitDataError::Algorithm(_)));
    assert!(matches!(refused_text(|t| t.replace("postern.toml", "aa.toml")), InitDataError::UnknownEntry(_)));
    assert!(matches!(refused_text(|t| t + "\"policy.rego\" = ''\n"), InitDataError::UnknownEntry(_)));
    assert!(matches!(refused_text(|t| t[..t.find('"').unwrap()].to_owned()), InitDataError::Toml(_)));
    let empty = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n";
    assert!(matches!(refused_text(|_| empty.to_owned()), InitDataError::NoEntry));
}

#[test]
fn broken_fields() {
    assert!(matches!(refused_text(|t| t.replace("\"demo\"", "\"../demo\"")), InitDataError::Toml(_)));
    assert!(matches!(refused_text(|t| t.replace("direct", "open")), InitDataError::Toml(_)));
    assert!(matches!(refused_text(|t| t.replace("mode =", "Mode =")), InitDataError::Toml(_)));
    let field = |error| match error {
        InitDataError::Field { field, .. } => field,
        other => panic!("{other}"),
    };
    assert_eq!(field(refused_text(|t| t.replace("5a5a", "5a5"))), "instance");
    assert_eq!(field(refused_text(|t| t.replace("BEGIN", "BEGAN"))), "owner_ca");
}

#[test]
fn a_duplicate_key_is_refused() {
    assert!(matches!(refused_text(|t| format!("version = \"0.1.0\"\n{t}")), InitDataError::Toml(_)));
    assert!(matches!(refused_text(|t| t.replace("mode", "pod = \"x\"\nmode")), InitDataError::Toml(_)));
}

proptest! {
    #[test]
    fn any_value_survives(
        pod in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        owner_ca_der in proptest::collection::vec(any::<u8>(), 1..2048),
        instance in any::<[u8; 32]>(),
    ) {
        let data = InitData { pod: pod.parse().unwrap(), owner_ca_der, instance, mode: Mode::Direct };
        let encoded = encode(&data);
        prop_assert_eq!(decode_device(&encoded.device()).unwrap(), (data, encoded.digest()));
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let _ = decode_toml(&bytes);
        prop_assert!(decode_device(&bytes).is_err());
        prop_assert!(decode_device(&device_of(&bytes)).is_err());
        prop_assert!(decode_device(&device_of(&gzip(&bytes))).is_err());
    }

    #[test]
    fn a_changed_bit_never_passes_for_the_original(at in any::<prop::sample::Index>(), bit in 0u32..8) {
        let encoded = encode(&init_data());
        let mut device = encoded.device();
        let at = at.index(device.len());
        device[at] ^= 1u8 << bit;
        if let Ok((data, digest)) = decode_device(&device) {
            // Bits of the gzip header that carry no data, such as its time, may change; the text may not.
            prop_assert_eq!((data, digest), (init_data(), encoded.digest()));
        }
    }
}
