//! Verification and appraisal against a simulated platform, and against evidence recorded on a real Milan.

use std::path::PathBuf;

use postern_model::{HostData, Measurement};
use postern_simtee::{
    GuestContext, Launch, Platform, Tcb,
    danger::{self, ReportFields},
};
use proptest::prelude::*;

use super::*;
use crate::{
    Appraisal, ReferenceValues, TrustedRoot, appraise, certificate_table::CertificateTable, x509::Certificate,
};

/// November 2023.
const NOW: u64 = 1_700_000_000;
const REPORT_DATA: [u8; 64] = [0x5a; 64];

fn launch() -> Launch {
    Launch::new(Measurement::new([0xab; 48]), HostData::new([0xcd; 32]))
}

fn reference_values() -> ReferenceValues {
    ReferenceValues {
        measurements: vec![Measurement::new([1; 48]), Measurement::new([0xab; 48])],
        host_data: HostData::new([0xcd; 32]),
        minimum_tcb: "boot_loader=3,tee=0,snp=8,microcode=115".parse().unwrap(),
    }
}

fn evidence(guest: &GuestContext) -> Evidence {
    Evidence {
        tee: Tee::Snp,
        report: guest.report(&REPORT_DATA).unwrap(),
        certificates: guest.certificates().to_vec(),
    }
}

fn trusting(platform: &Platform) -> TrustedRoots {
    TrustedRoots::amd().with(TrustedRoot::simulated("here", platform.root_der()).unwrap())
}

/// Verifies and appraises; gives the failed check and its message.
fn judge(evidence: &Evidence, roots: &TrustedRoots, now: u64) -> Result<Appraisal, (Check, String)> {
    let verified = verify(evidence, roots, now).map_err(|e| (e.check(), e.to_string()))?;
    appraise(verified, &reference_values(), &REPORT_DATA, Check::KeyBinding)
        .map_err(|e| (e.check(), e.to_string()))
}

#[test]
fn the_honest_guest_passes_every_check() {
    let platform = Platform::ephemeral().unwrap();
    let guest = platform.launch(launch()).unwrap();
    for version in [2, 3] {
        let guest = danger::alter(guest.clone(), |fields| fields.version = version);
        let appraisal = judge(&evidence(&guest), &trusting(&platform), NOW).unwrap();
        assert_eq!(appraisal.root_kind(), RootKind::Simulated);
        assert_eq!(appraisal.root_name(), "here");
        assert_eq!(appraisal.product(), "Milan-B1");
        let checks: Vec<Check> = appraisal.checks().iter().map(|(check, _)| *check).collect();
        assert_eq!(checks, Check::ALL[..5]);
        assert!(appraisal.checks()[0].1.contains("SIMULATED"));
    }
}

#[test]
fn a_guest_that_is_not_as_expected_fails_by_name() {
    let platform = Platform::ephemeral().unwrap();
    type Change = fn(&mut ReportFields);
    let cases: [(Check, &str, Change); 12] = [
        (Check::Tcb, "debugging", |f| f.policy |= danger::POLICY_DEBUG),
        (Check::Tcb, "migration", |f| f.policy |= danger::POLICY_MIGRATE),
        (Check::Tcb, "VMPL 1", |f| f.vmpl = 1),
        (Check::Tcb, "committed TCB", |f| f.committed_tcb.snp = 7),
        (Check::Tcb, "current TCB", |f| f.current_tcb.microcode = 114),
        (Check::Tcb, "launch TCB", |f| f.launch_tcb.boot_loader = 2),
        (Check::Tcb, "VCEK is for TCB", |f| f.reported_tcb.snp = 9),
        (Check::Measurement, "measurement", |f| f.measurement = Measurement::new([0xac; 48])),
        (Check::HostData, "host data", |f| f.host_data = HostData::new([0; 32])),
        (Check::VendorChain, "VLEK", |f| f.key_info = 1 << 2),
        (Check::VendorChain, "nobody", |f| f.key_info = 7 << 2),
        (Check::VendorChain, "chip", |f| f.chip_id[0] ^= 1),
    ];
    for (check, says, change) in cases {
        let guest = danger::alter(platform.launch(launch()).unwrap(), change);
        let (failed, message) = judge(&evidence(&guest), &trusting(&platform), NOW).unwrap_err();
        assert_eq!(failed, check, "{message}");
        assert!(message.contains(says), "{says}: {message}");
    }
}

#[test]
fn a_tcb_below_the_floor_fails_even_with_its_own_vcek() {
    let platform = Platform::ephemeral().unwrap();
    let old = Tcb { snp: 7, ..Tcb::CURRENT };
    let rolled_back = danger::reissue_vcek(&platform, |vcek| vcek.tcb = old).unwrap();
    let guest = rolled_back.launch(launch()).unwrap();
    // What the host can set is old; what it cannot, claims to be new.
    let guest = danger::alter(guest, |f| (f.committed_tcb, f.current_tcb) = (Tcb::CURRENT, Tcb::CURRENT));
    let (check, message) = judge(&evidence(&guest), &trusting(&platform), NOW).unwrap_err();
    assert_eq!(check, Check::Tcb);
    assert!(message.contains("reported TCB"), "{message}");
}

#[test]
fn evidence_over_something_else_fails_at_its_binding() {
    let platform = Platform::ephemeral().unwrap();
    let guest = platform.launch(launch()).unwrap();
    for binding in [Check::KeyBinding, Check::SessionBinding] {
        let verified = verify(&evidence(&guest), &trusting(&platform), NOW).unwrap();
        let error = appraise(verified, &reference_values(), &[0; 64], binding).unwrap_err();
        assert_eq!(error.check(), binding);
    }
}

#[test]
fn no_reference_values_accept_nobody() {
    let platform = Platform::ephemeral().unwrap();
    let verified = verify(&evidence(&platform.launch(launch()).unwrap()), &trusting(&platform), NOW).unwrap();
    let none = ReferenceValues { measurements: vec![], ..reference_values() };
    let error = appraise(verified, &none, &REPORT_DATA, Check::KeyBinding).unwrap_err();
    assert_eq!(error.check(), Check::Measurement);
}

#[test]
fn a_chain_that_ends_elsewhere_is_refused() {
    let platform = Platform::ephemeral().unwrap();
    let foreign = Platform::ephemeral().unwrap();
    let guest = platform.launch(launch()).unwrap();
    let roots = trusting(&platform);
    let refused = |evidence: &Evidence, roots: &TrustedRoots| {
        let error = verify(evidence, roots, NOW).unwrap_err();
        assert_eq!(error.check(), Check::VendorChain, "{error}");
        error
    };

    // A simulated platform is never trusted by itself, nor is another one.
    for roots in [TrustedRoots::none(), TrustedRoots::amd(), trusting(&foreign)] {
        assert!(matches!(refused(&evidence(&guest), &roots), VerifyError::UnknownRoot { .. }));
    }
    // Another platform's certificates beside a report of this one, and the other way round.
    let theirs = foreign.launch(launch()).unwrap().certificates().to_vec();
    let mixed = danger::with_certificates(guest.clone(), theirs);
    assert!(matches!(refused(&evidence(&mixed), &roots), VerifyError::UnknownRoot { .. }));
    assert!(matches!(refused(&evidence(&mixed), &trusting(&foreign)), VerifyError::Chip { .. }));
    // Its own VCEK, made up again for the same chip and TCB: certified, but not the key that signed.
    let twin = danger::reissue_vcek(&platform, |_| {}).unwrap().launch(launch()).unwrap();
    let mixed = danger::with_certificates(guest.clone(), twin.certificates().to_vec());
    assert!(matches!(refused(&evidence(&mixed), &roots), VerifyError::ReportSignature));
    // No certificates at all.
    let bare = danger::with_certificates(guest, vec![]);
    assert!(matches!(refused(&evidence(&bare), &roots), VerifyError::Missing("VCEK")));
}

#[test]
fn names_alone_do_not_make_a_chain() {
    let platform = Platform::ephemeral().unwrap();
    let foreign = Platform::ephemeral().unwrap();
    let ours = CertificateTable::parse(platform.launch(launch()).unwrap().certificates())
        .unwrap()
        .ask
        .map(<[u8]>::to_vec);
    let guest = foreign.launch(launch()).unwrap();
    // A foreign VCEK over an ASK that is trusted, its subject rewritten to what the VCEK's issuer says.
    let theirs = CertificateTable::parse(guest.certificates()).unwrap();
    let names = |der: &[u8]| Certificate::parse("test", der).unwrap();
    let (our_ask, their_ask) = (ours.unwrap(), theirs.ask.unwrap());
    let mut forged = their_ask.to_vec();
    let (from, to) = (names(their_ask).issuer, names(&our_ask).issuer);
    let place = forged.windows(from.len()).position(|window| window == from).unwrap();
    forged[place..place + to.len()].copy_from_slice(&to);
    let table = CertificateTable { ask: Some(&forged), ..theirs }.to_bytes();
    let error =
        verify(&evidence(&danger::with_certificates(guest.clone(), table)), &trusting(&platform), NOW);
    assert!(matches!(error, Err(VerifyError::ChainSignature { who: "ASK", .. })), "{error:?}");
}

#[test]
fn certificates_count_while_they_are_valid() {
    let platform = Platform::ephemeral().unwrap();
    let expired = danger::reissue_vcek(&platform, |vcek| vcek.years = (2020, 2021)).unwrap();
    let future = danger::reissue_vcek(&platform, |vcek| vcek.years = (2040, 2041)).unwrap();
    let roots = trusting(&platform);
    for platform in [&expired, &future] {
        let evidence = evidence(&platform.launch(launch()).unwrap());
        let error = verify(&evidence, &roots, NOW).unwrap_err();
        assert!(matches!(error, VerifyError::Validity { who: "VCEK", .. }), "{error}");
    }
    // Remembering good signatures does not stop the clock.
    let evidence = evidence(&platform.launch(launch()).unwrap());
    assert!(verify(&evidence, &roots, NOW).is_ok());
    let error = verify(&evidence, &roots, 4_000_000_000).unwrap_err();
    assert!(matches!(error, VerifyError::Validity { .. }), "{error}");
    assert!(verify(&evidence, &roots, u64::MAX).is_err());
}

#[test]
fn a_remembered_signature_is_remembered_for_its_message_only() {
    let platform = Platform::ephemeral().unwrap();
    let roots = trusting(&platform);
    let good = evidence(&platform.launch(launch()).unwrap());
    assert!(verify(&good, &roots, NOW).is_ok());
    let mut bad = good.clone();
    bad.report[0x90] ^= 1;
    assert!(matches!(verify(&bad, &roots, NOW), Err(VerifyError::ReportSignature)));
    assert!(verify(&good, &roots, NOW).is_ok());
}

/// What is remembered under one set of roots says nothing about another.
#[test]
fn a_set_of_roots_remembers_for_itself() {
    let platform = Platform::ephemeral().unwrap();
    let evidence = evidence(&platform.launch(launch()).unwrap());
    let without = TrustedRoots::amd();
    let with = without.clone().with(TrustedRoot::simulated("here", platform.root_der()).unwrap());
    assert!(verify(&evidence, &with, NOW).is_ok());
    assert!(matches!(verify(&evidence, &without, NOW), Err(VerifyError::UnknownRoot { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_changed_report_is_refused(place in 0usize..1184, flip in 1u8..=255) {
        let platform = Platform::ephemeral().unwrap();
        let roots = trusting(&platform);
        let mut evidence = evidence(&platform.launch(launch()).unwrap());
        evidence.report[place] ^= flip;
        prop_assert!(verify(&evidence, &roots, NOW).is_err());
    }

    #[test]
    fn changed_certificates_never_panic(place in 0usize..4000, byte in any::<u8>()) {
        let platform = Platform::ephemeral().unwrap();
        let mut evidence = evidence(&platform.launch(launch()).unwrap());
        let place = place % evidence.certificates.len();
        evidence.certificates[place] = byte;
        let _ = verify(&evidence, &trusting(&platform), NOW);
    }
}

/// Evidence recorded on a Milan in 2023. None, with a word about it, where the recordings are not at hand.
fn recorded() -> Option<Evidence> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/evidence");
    let read = |name: &str| {
        let bytes = std::fs::read(dir.join(name));
        if bytes.is_err() {
            eprintln!("recorded evidence {name} is missing in {}: not tested against it", dir.display());
        }
        bytes.ok()
    };
    let (report, vcek) = (read("snp-milan-report.bin")?, read("snp-milan-vcek.der")?);
    let certificates = CertificateTable { vcek: Some(&vcek), ..CertificateTable::default() }.to_bytes();
    Some(Evidence { tee: Tee::Snp, report, certificates })
}

#[test]
fn evidence_of_a_real_milan_is_verified() {
    let Some(evidence) = recorded() else { return };
    let verified = verify(&evidence, &TrustedRoots::amd(), NOW).unwrap();
    assert_eq!((verified.root_name(), verified.root_kind()), ("AMD Milan", RootKind::Amd));
    assert_eq!(verified.product(), "Milan-B0");
    let report = verified.report().clone();
    assert_eq!(report.reported_tcb, "boot_loader=3,tee=0,snp=8,microcode=115".parse().unwrap());
    let expected = ReferenceValues {
        measurements: vec![report.measurement],
        host_data: report.host_data,
        minimum_tcb: report.reported_tcb,
    };
    appraise(verified, &expected, &report.report_data, Check::KeyBinding).unwrap();
}

#[test]
fn evidence_of_a_real_milan_is_refused_when_anything_is_off() {
    let Some(evidence) = recorded() else { return };
    let milan = TrustedRoots::amd();
    let mut changed = evidence.clone();
    changed.report[0x50] ^= 1;
    assert!(matches!(verify(&changed, &milan, NOW), Err(VerifyError::ReportSignature)));
    let after_2030 = 1_900_000_000;
    assert!(matches!(verify(&evidence, &milan, after_2030), Err(VerifyError::Validity { who: "VCEK", .. })));
    let simulated = Platform::ephemeral().unwrap();
    let only_simulated =
        TrustedRoots::none().with(TrustedRoot::simulated("here", simulated.root_der()).unwrap());
    assert!(matches!(verify(&evidence, &only_simulated, NOW), Err(VerifyError::UnknownRoot { .. })));
}
