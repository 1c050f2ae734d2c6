//! The platform and its keys: ARK -> ASK -> VCEK -> reports, all of them P-384.
//!
//! The VCEK's certificate carries AMD's extensions (57230, section 3.1): product, security versions, chip. The
//! ARK's key exists only while it signs the ASK.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use postern_model::{HostData, Measurement};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PublicKeyData, date_time_ymd,
};
use ring::{
    digest::{SHA512, digest},
    rand::{SecureRandom, SystemRandom},
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair},
};

use crate::{
    report::{self, ReportFields, SIGNED, Tcb},
    storage, table,
};

/// Why the platform has no answer.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("platform state in {} is damaged; remove it to have a new platform made", .0.display())]
    Damaged(PathBuf),
    #[error("cannot make a key or certificate")]
    Make(#[from] rcgen::Error),
    #[error("cryptography library refused a key or has no random numbers")]
    Crypto,
}

/// A secure processor in software: anyone who can read its files can sign anything.
#[derive(Debug, Clone)]
pub struct Platform {
    pub(crate) chain: Arc<Chain>,
    pub(crate) vcek: Arc<Vcek>,
    pub(crate) root_path: Option<PathBuf>,
}

/// The authorities above a platform's own key.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) root_pem: String,
    pub(crate) ark: Vec<u8>,
    pub(crate) ask: Vec<u8>,
    pub(crate) ask_key: KeyPair,
}

/// The key that signs reports.
#[derive(Debug)]
pub(crate) struct Vcek {
    pub(crate) certificate: Vec<u8>,
    pub(crate) pkcs8: Vec<u8>,
    key: EcdsaKeyPair,
    pub(crate) facts: VcekFacts,
}

/// What a VCEK's certificate says of its platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VcekFacts {
    pub tcb: Tcb,
    pub chip_id: [u8; 64],
    /// First and last year of validity.
    pub years: (i32, i32),
}

/// What a guest is launched with: the inputs of `SNP_LAUNCH_*`.
#[derive(Debug, Clone)]
pub struct Launch {
    pub measurement: Measurement,
    pub host_data: HostData,
    pub policy: u64,
}

impl Launch {
    /// SMT allowed, no debugging, no migration (bit 17 is always one: section 4.3, table "Guest Policy").
    pub const POLICY: u64 = 1 << 17 | 1 << 16;

    /// A launch under [`Self::POLICY`].
    pub fn new(measurement: Measurement, host_data: HostData) -> Self {
        Self { measurement, host_data, policy: Self::POLICY }
    }
}

impl Platform {
    /// Opens the platform whose state is in `dir`, or makes one there. Two who do so at once get the same one.
    pub fn open_or_create(dir: &Path) -> Result<Self, PlatformError> {
        if let Some(platform) = storage::open(dir)? {
            return Ok(platform);
        }
        storage::save(dir, &Self::ephemeral()?)?;
        storage::open(dir)?.ok_or_else(|| PlatformError::Damaged(dir.to_path_buf()))
    }

    /// A platform that is gone with the process.
    pub fn ephemeral() -> Result<Self, PlatformError> {
        let chain = Chain::make()?;
        let facts = VcekFacts { tcb: Tcb::CURRENT, chip_id: chain.chip_id(), years: (2020, 2050) };
        let vcek = Vcek::make(&chain, facts)?;
        Ok(Self { chain: Arc::new(chain), vcek: Arc::new(vcek), root_path: None })
    }

    pub(crate) fn from_parts(chain: Chain, vcek: Vcek, root_path: PathBuf) -> Self {
        Self { chain: Arc::new(chain), vcek: Arc::new(vcek), root_path: Some(root_path) }
    }

    /// The certificate that a verifier has to trust, and should not.
    pub fn root_pem(&self) -> &str {
        &self.chain.root_pem
    }

    /// The same, as DER.
    pub fn root_der(&self) -> &[u8] {
        &self.chain.ark
    }

    /// Where the root's PEM is. None for a platform that is in memory only.
    pub fn root_path(&self) -> Option<&Path> {
        self.root_path.as_deref()
    }

    /// Launches a guest: from now on the platform signs reports about it.
    pub fn launch(&self, launch: Launch) -> Result<GuestContext, PlatformError> {
        let mut report_id = [0; 32];
        SystemRandom::new().fill(&mut report_id).map_err(|_| PlatformError::Crypto)?;
        let VcekFacts { tcb, chip_id, .. } = self.vcek.facts;
        let fields = ReportFields {
            version: 3,
            guest_svn: 0,
            policy: launch.policy,
            vmpl: 0,
            signature_algorithm: 1,
            platform_info: 1,
            key_info: 0,
            report_data: [0; 64],
            measurement: launch.measurement,
            host_data: launch.host_data,
            report_id,
            // Family 19h, model 1, stepping 1: Milan-B1.
            cpuid: [0x19, 1, 1],
            chip_id,
            current_tcb: tcb,
            reported_tcb: tcb,
            committed_tcb: tcb,
            launch_tcb: tcb,
        };
        let certificates = table::write(&[
            (table::VCEK, &self.vcek.certificate),
            (table::ASK, &self.chain.ask),
            (table::ARK, &self.chain.ark),
        ]);
        Ok(GuestContext { vcek: self.vcek.clone(), fields, certificates })
    }
}

/// One launched guest, as its platform knows it.
#[derive(Debug, Clone)]
pub struct GuestContext {
    vcek: Arc<Vcek>,
    pub(crate) fields: ReportFields,
    pub(crate) certificates: Vec<u8>,
}

impl GuestContext {
    /// A signed report about this guest, over the guest's own 64 bytes.
    pub fn report(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, PlatformError> {
        let fields = ReportFields { report_data: *report_data, ..self.fields.clone() };
        let mut report = fields.unsigned();
        let signature =
            self.vcek.key.sign(&SystemRandom::new(), &report[..SIGNED]).map_err(|_| PlatformError::Crypto)?;
        report::put_signature(&mut report, signature.as_ref());
        Ok(report)
    }

    /// The GHCB certificate table that goes with every report.
    pub fn certificates(&self) -> &[u8] {
        &self.certificates
    }
}

impl Chain {
    fn make() -> Result<Self, PlatformError> {
        let ark_key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?;
        let ask_key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?;
        // Told apart by name too, so that an error about an unknown root says which.
        let suffix = &hex::encode(digest(&SHA512, ark_key.der_bytes()))[..8];
        let ark_params = authority(&format!("SIMULATED ARK {suffix}"), BasicConstraints::Unconstrained);
        let ark = ark_params.self_signed(&ark_key)?;
        let issuer = Issuer::from_params(&ark_params, &ark_key);
        let ask = authority(&format!("SIMULATED ASK {suffix}"), BasicConstraints::Constrained(0))
            .signed_by(&ask_key, &issuer)?;
        Ok(Self { root_pem: ark.pem(), ark: ark.der().to_vec(), ask: ask.der().to_vec(), ask_key })
    }

    /// Every platform is another chip.
    pub(crate) fn chip_id(&self) -> [u8; 64] {
        let mut chip_id = [0; 64];
        chip_id.copy_from_slice(digest(&SHA512, &self.ark).as_ref());
        chip_id
    }
}

fn authority(common_name: &str, constraints: BasicConstraints) -> CertificateParams {
    let mut params = named(common_name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2050, 1, 1);
    params
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Postern simulated platform, protects nothing");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

impl Vcek {
    pub(crate) fn make(chain: &Chain, facts: VcekFacts) -> Result<Self, PlatformError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?;
        let mut params = named("SIMULATED VCEK");
        params.not_before = date_time_ymd(facts.years.0, 1, 1);
        params.not_after = date_time_ymd(facts.years.1, 1, 1);
        params.custom_extensions = extensions(&facts);
        let issuer = Issuer::from_ca_cert_der(&chain.ask.as_slice().into(), &chain.ask_key)?;
        let certificate = params.signed_by(&key, &issuer)?.der().to_vec();
        Self::from_parts(certificate, key.serialize_der(), facts)
    }

    pub(crate) fn from_parts(
        certificate: Vec<u8>,
        pkcs8: Vec<u8>,
        facts: VcekFacts,
    ) -> Result<Self, PlatformError> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &pkcs8, &SystemRandom::new())
            .map_err(|_| PlatformError::Crypto)?;
        Ok(Self { certificate, pkcs8, key, facts })
    }
}

/// AMD's extensions below 1.3.6.1.4.1.3704.1 (57230, section 3.1, table "VCEK Certificate Extensions").
fn extensions(facts: &VcekFacts) -> Vec<CustomExtension> {
    let extension = |suffix: &[u64], content: Vec<u8>| {
        CustomExtension::from_oid_content(&[&[1, 3, 6, 1, 4, 1, 3704, 1], suffix].concat(), content)
    };
    let integer = |value: u8| match value {
        0..0x80 => vec![0x02, 0x01, value],
        _ => vec![0x02, 0x02, 0x00, value],
    };
    let tcb = facts.tcb;
    vec![
        extension(&[1], integer(1)),
        // IA5String.
        extension(&[2], b"\x16\x08Milan-B1".to_vec()),
        extension(&[3, 1], integer(tcb.boot_loader)),
        extension(&[3, 2], integer(tcb.tee)),
        extension(&[3, 3], integer(tcb.snp)),
        extension(&[3, 8], integer(tcb.microcode)),
        extension(&[4], facts.chip_id.to_vec()),
    ]
}

#[cfg(test)]
mod tests;
