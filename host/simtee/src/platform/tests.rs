//! The format held against the field's own parser; the files against those who make them at once.

use sev::{firmware::guest::AttestationReport, parser::ByteParser};

use super::*;

fn launch() -> Launch {
    Launch::new(Measurement::new([0xab; 48]), HostData::new([0xcd; 32]))
}

#[test]
fn the_sev_crate_reads_every_field() {
    let platform = Platform::ephemeral().unwrap();
    for version in [2, 3] {
        let guest = crate::danger::alter(platform.launch(launch()).unwrap(), |f| f.version = version);
        let report = guest.report(&[0x5a; 64]).unwrap();
        assert_eq!(report.len(), 1184);
        let read = AttestationReport::from_bytes(&report).unwrap();
        assert_eq!(read.version, version);
        assert_eq!(read.sig_algo, 1);
        assert_eq!(read.vmpl, 0);
        assert_eq!(u64::from(read.policy), Launch::POLICY);
        assert_eq!(read.report_data, [0x5a; 64]);
        assert_eq!(read.measurement, [0xab; 48]);
        assert_eq!(read.host_data, [0xcd; 32]);
        assert_eq!(read.chip_id, platform.vcek.facts.chip_id);
        for tcb in [read.current_tcb, read.reported_tcb, read.committed_tcb, read.launch_tcb] {
            let Tcb { boot_loader, tee, snp, microcode } = Tcb::CURRENT;
            assert_eq!((tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode), (boot_loader, tee, snp, microcode));
        }
        assert_eq!((read.current.major, read.current.minor, read.current.build), (1, 55, 21));
        // What is written again is what was read: no byte stands where none belongs.
        assert_eq!(read.to_bytes().unwrap().as_slice(), report);
    }
}

#[test]
fn every_guest_is_another() {
    let platform = Platform::ephemeral().unwrap();
    let (one, other) = (platform.launch(launch()).unwrap(), platform.launch(launch()).unwrap());
    assert_ne!(one.fields.report_id, other.fields.report_id);
    assert_ne!(platform.root_der(), Platform::ephemeral().unwrap().root_der());
}

#[test]
fn a_platform_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let roots: Vec<String> = std::thread::scope(|scope| {
        let open = || Platform::open_or_create(dir.path()).unwrap().root_pem().to_owned();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(roots.iter().all(|root| *root == roots[0]));
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["platform-1"], "drafts are cleaned up");

    let again = Platform::open_or_create(dir.path()).unwrap();
    assert_eq!(std::fs::read_to_string(again.root_path().unwrap()).unwrap(), roots[0]);
    assert!(roots[0].starts_with("-----BEGIN CERTIFICATE-----"));
}

#[test]
fn keys_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    Platform::open_or_create(dir.path()).unwrap();
    for entry in std::fs::read_dir(dir.path().join("platform-1")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}

#[test]
fn a_damaged_platform_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    Platform::open_or_create(dir.path()).unwrap();
    std::fs::write(dir.path().join("platform-1/vcek.key"), b"short").unwrap();
    let error = Platform::open_or_create(dir.path()).unwrap_err();
    assert!(matches!(error, PlatformError::Damaged(_)), "{error}");
}
