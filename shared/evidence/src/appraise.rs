//! Appraisal: is a verified report the guest the owner meant? Each check has a name, and a failure says which.
//!
//! Chain and signature were verified before ([`crate::verify()`]); here the report's content is held against
//! reference values. Debug, migration and a privilege level other than 0 are refused whatever the reference values.

use std::fmt;

use postern_model::{HostData, Measurement};

use crate::{
    roots::RootKind,
    snp::{SnpReport, TcbVersion},
    verify::VerifiedReport,
};

/// What is checked before a guest is trusted, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Check {
    /// The signature chain ends in a trusted root.
    VendorChain,
    /// No debug, no migration, most privileged level, and the TCB at or above the floor.
    Tcb,
    /// The measurement is among the reference values.
    Measurement,
    /// The host data is the digest of the init data that the owner made.
    HostData,
    /// The TLS key of the guest is the one its evidence names.
    KeyBinding,
    /// Fresh evidence names this nonce and this TLS session.
    SessionBinding,
    /// The same instance as last time.
    Instance,
}

impl Check {
    pub const ALL: [Self; 7] = [
        Self::VendorChain,
        Self::Tcb,
        Self::Measurement,
        Self::HostData,
        Self::KeyBinding,
        Self::SessionBinding,
        Self::Instance,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::VendorChain => "vendor chain",
            Self::Tcb => "TCB",
            Self::Measurement => "measurement",
            Self::HostData => "host data",
            Self::KeyBinding => "key binding",
            Self::SessionBinding => "session binding",
            Self::Instance => "this instance",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the owner expects of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceValues {
    /// Launch measurements that are accepted. Empty accepts none.
    pub measurements: Vec<Measurement>,
    /// Digest of the init data that the owner made for this pod.
    pub host_data: HostData,
    /// The floor; no part of the platform's TCB may be below it.
    pub minimum_tcb: TcbVersion,
}

/// A report that is not what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppraisalError {
    #[error("guest was launched with {what}, which lets others into it")]
    Policy { what: &'static str },
    #[error("report was asked for at VMPL {0}, not at 0")]
    PrivilegeLevel(u32),
    #[error("{which} TCB {found} is below the floor {floor}")]
    TcbBelowFloor { which: &'static str, floor: TcbVersion, found: TcbVersion },
    #[error("measurement is {found}, expected {}", list(expected))]
    Measurement { expected: Vec<Measurement>, found: Measurement },
    #[error("host data is {found}, expected {expected}, the digest of the owner's init data")]
    HostData { expected: HostData, found: HostData },
    #[error("report data is {found}, expected {expected}")]
    Binding { check: Check, expected: String, found: String },
}

fn list(measurements: &[Measurement]) -> String {
    match measurements {
        [] => "one of the reference values, of which there are none".into(),
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first} or one of {} others", rest.len()),
    }
}

impl AppraisalError {
    /// The check that failed.
    pub fn check(&self) -> Check {
        match self {
            Self::Policy { .. } | Self::PrivilegeLevel(_) | Self::TcbBelowFloor { .. } => Check::Tcb,
            Self::Measurement { .. } => Check::Measurement,
            Self::HostData { .. } => Check::HostData,
            Self::Binding { check, .. } => *check,
        }
    }
}

/// A verified report that is what the owner expects. Only [`appraise`] makes one.
#[derive(Debug, Clone)]
pub struct Appraisal {
    verified: VerifiedReport,
    checks: Vec<(Check, String)>,
}

impl Appraisal {
    pub fn report(&self) -> &SnpReport {
        self.verified.report()
    }

    pub fn root_name(&self) -> &str {
        self.verified.root_name()
    }

    pub fn root_kind(&self) -> RootKind {
        self.verified.root_kind()
    }

    /// Name of the processor, as its certificate gives it.
    pub fn product(&self) -> &str {
        self.verified.product()
    }

    /// What was checked, in order, each with what was found.
    pub fn checks(&self) -> &[(Check, String)] {
        &self.checks
    }
}

/// Holds a verified report against what is expected. `binding` names the check that `report_data` decides:
/// [`Check::KeyBinding`] or [`Check::SessionBinding`].
pub fn appraise(
    verified: VerifiedReport,
    expected: &ReferenceValues,
    report_data: &[u8; 64],
    binding: Check,
) -> Result<Appraisal, AppraisalError> {
    let report = verified.report();
    tcb(report, &expected.minimum_tcb)?;
    if !expected.measurements.contains(&report.measurement) {
        let expected = expected.measurements.clone();
        return Err(AppraisalError::Measurement { expected, found: report.measurement });
    }
    if report.host_data != expected.host_data {
        return Err(AppraisalError::HostData { expected: expected.host_data, found: report.host_data });
    }
    if report.report_data != *report_data {
        return Err(AppraisalError::Binding {
            check: binding,
            expected: hex::encode(report_data),
            found: hex::encode(report.report_data),
        });
    }
    let kind = match verified.root_kind() {
        RootKind::Amd => "",
        RootKind::Simulated => " (SIMULATED: protects nothing)",
    };
    let checks = vec![
        (Check::VendorChain, format!("{} under root {:?}{kind}", verified.product(), verified.root_name())),
        (Check::Tcb, format!("no debug, {}", report.reported_tcb)),
        (Check::Measurement, report.measurement.to_string()),
        (Check::HostData, report.host_data.to_string()),
        (binding, hex::encode(&report_data[..16])),
    ];
    Ok(Appraisal { verified, checks })
}

fn tcb(report: &SnpReport, floor: &TcbVersion) -> Result<(), AppraisalError> {
    if report.policy.debug() {
        return Err(AppraisalError::Policy { what: "debugging allowed" });
    }
    if report.policy.migrate_ma() {
        return Err(AppraisalError::Policy { what: "a migration agent allowed" });
    }
    if report.vmpl != 0 {
        return Err(AppraisalError::PrivilegeLevel(report.vmpl));
    }
    // The lowest of them is what an attacker may have used; reported and committed are what the host could set.
    for (which, found) in [
        ("reported", report.reported_tcb),
        ("committed", report.committed_tcb),
        ("current", report.current_tcb),
        ("launch", report.launch_tcb),
    ] {
        if !found.is_at_least(floor) {
            return Err(AppraisalError::TcbBelowFloor { which, floor: *floor, found });
        }
    }
    Ok(())
}
