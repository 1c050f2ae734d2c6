//! The owner's identity on disk: a CA key that never leaves this machine, and client certificates with a role each.
//!
//! ```text
//! identity/owner-ca.pem  owner-ca.key  client-admin.pem  client-admin.key  client-viewer.pem ...
//! ```
//! Client certificates are short-lived and issued anew when they run out, as long as the CA key is here.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use postern_model::Role;
use postern_tunnel::{ClientIdentity, OwnerCa, Validity};

use crate::{
    exit::Exit,
    failure::{Failure, OrFail},
    home::{self, Existing, Home},
    human,
};

/// The CA outlives every pod; a new one means new pods.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How long a client certificate is valid.
pub(crate) const CLIENT_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// A certificate with less left is issued anew.
const RENEW_BEFORE: u64 = 86_400;

/// A new identity, written whole or not at all. An identity that is there is refused, or kept aside with `replace`.
pub(crate) fn create(home: &Home, roles: &[Role], replace: bool) -> Result<Created, Failure> {
    let dir = home.identity();
    if dir.exists() && !replace {
        return Err(Failure::general(format!("an identity exists already in {}", dir.display())).hint(
            "pods made with it obey only it; add a role with `postern init --role ROLE`, or start anew with \
             `postern init --accept-risk=replace-identity`",
        ));
    }
    home::make_private_dir(home.config())?;
    let staged = tempfile::Builder::new()
        .prefix(".identity-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .tempdir_in(home.config())
        .or_fail(|| format!("cannot write below {}", home.config().display()))?;
    let now = now();
    let ca =
        OwnerCa::create(Validity::starting(now, CA_LIFETIME)).or_fail(|| "cannot make an owner CA".into())?;
    save(staged.path(), "owner-ca", ca.certificate_pem(), ca.key_pem().expose())?;
    for role in roles {
        issue(&ca, staged.path(), *role, now)?;
    }
    let kept = match dir.exists() {
        true => Some(keep_aside(&dir)?),
        false => None,
    };
    let staged = staged.keep();
    fs::rename(&staged, &dir)
        .or_fail(|| format!("cannot rename {} to {}", staged.display(), dir.display()))?;
    Ok(Created { kept })
}

/// What [`create`] made.
#[derive(Debug)]
pub(crate) struct Created {
    /// Where the identity before it is kept.
    pub(crate) kept: Option<PathBuf>,
}

fn keep_aside(dir: &Path) -> Result<PathBuf, Failure> {
    let aside = dir.with_file_name(format!("identity.replaced-{}", human::now_millis()));
    fs::rename(dir, &aside).or_fail(|| format!("cannot keep {} aside", dir.display()))?;
    Ok(aside)
}

/// Issues certificates for `roles` with the CA that is there.
pub(crate) fn add_roles(home: &Home, roles: &[Role]) -> Result<(), Failure> {
    let ca = load_ca(home)?;
    for role in roles {
        issue(&ca, &home.identity(), *role, now())?;
    }
    Ok(())
}

fn issue(ca: &OwnerCa, dir: &Path, role: Role, now: u64) -> Result<ClientIdentity, Failure> {
    let client = ca
        .issue(&user_name(), role, Validity::starting(now, CLIENT_LIFETIME))
        .or_fail(|| format!("cannot issue a certificate for role {role}"))?;
    save(dir, &format!("client-{role}"), client.certificate_pem(), client.key_pem().expose())?;
    Ok(client)
}

/// The key first: a certificate without its key would look like an identity.
fn save(dir: &Path, name: &str, certificate: String, key: &str) -> Result<(), Failure> {
    home::write_private(&dir.join(format!("{name}.key")), key.as_bytes(), Existing::Replace)?;
    home::write_private(&dir.join(format!("{name}.pem")), certificate.as_bytes(), Existing::Replace)
}

/// Who the pod's audit will name.
fn user_name() -> String {
    let name = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control() && *c != '/').take(32).collect();
    if name.is_empty() { "owner".into() } else { name }
}

/// The owner CA, for issuing.
pub(crate) fn load_ca(home: &Home) -> Result<OwnerCa, Failure> {
    let dir = home.identity();
    let certificate = required(&dir.join("owner-ca.pem"))?;
    let key = dir.join("owner-ca.key");
    let key = home::read_key(&key)?.ok_or_else(|| missing(&key))?;
    OwnerCa::from_pem(&certificate, &key)
        .or_fail(|| format!("the owner CA in {} cannot be used", dir.display()))
}

fn required(path: &Path) -> Result<Vec<u8>, Failure> {
    home::read(path)?.ok_or_else(|| missing(path))
}

fn missing(path: &Path) -> Failure {
    Failure::general(format!("there is no identity: {} is missing", path.display()))
        .hint("`postern init` makes one")
}

/// The client certificate for `role`, issued anew when it has run out and the CA key is here.
pub(crate) fn client(home: &Home, role: Role) -> Result<ClientIdentity, Failure> {
    let dir = home.identity();
    let path = |end: &str| dir.join(format!("client-{role}.{end}"));
    let (Some(certificate), Some(key)) = (home::read(&path("pem"))?, home::read_key(&path("key"))?) else {
        let failure = Failure::general(format!("there is no identity for role {role} in {}", dir.display()));
        return Err(match dir.join("owner-ca.pem").exists() {
            true => failure.hint(format!("`postern init --role {role}` issues one")),
            false => failure.hint("`postern init` makes an identity"),
        });
    };
    let client = ClientIdentity::from_pem(&certificate, &key)
        .or_fail(|| format!("{} cannot be used", path("pem").display()))?;
    let now = now();
    if client.validity().contains(now) && client.validity().contains(now + RENEW_BEFORE) {
        return Ok(client);
    }
    if dir.join("owner-ca.key").exists() {
        return issue(&load_ca(home)?, &dir, role, now);
    }
    match client.validity().contains(now) {
        true => Ok(client),
        false => Err(Failure::new(
            Exit::Denied,
            format!("the client certificate for role {role} is not valid now"),
        )
        .caused_by(format!("it is valid until {}", human::rfc3339(client.validity().not_after * 1000)))
        .hint("ask the owner for a new one; the owner CA key is not on this machine")),
    }
}

/// The roles for which there is a certificate.
pub(crate) fn roles(home: &Home) -> Vec<Role> {
    let has = |role: &Role| home.identity().join(format!("client-{role}.pem")).exists();
    Role::ALL.into_iter().filter(has).collect()
}

/// Seconds since 1970, by this machine's clock.
pub(crate) fn now() -> u64 {
    human::now_millis() / 1000
}

/// Whether an identity is there at all.
pub(crate) fn exists(home: &Home) -> io::Result<bool> {
    home.identity().join("owner-ca.pem").try_exists()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::below(dir.path());
        (dir, home)
    }

    #[test]
    fn an_identity_is_private_and_not_replaced_by_accident() {
        let (_dir, home) = home();
        create(&home, &[Role::Admin], false).unwrap();
        let first = load_ca(&home).unwrap();
        for file in fs::read_dir(home.identity()).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(home.identity()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(create(&home, &[Role::Admin], false).is_err());
        assert_eq!(load_ca(&home).unwrap().certificate_der(), first.certificate_der());
        let second = create(&home, &[Role::Admin], true).unwrap();
        assert_ne!(load_ca(&home).unwrap().certificate_der(), first.certificate_der());
        assert!(second.kept.unwrap().join("owner-ca.key").exists(), "the old identity is kept");
        assert_eq!(fs::read_dir(home.config()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn roles_are_added_and_missing_ones_named() {
        let (_dir, home) = home();
        assert!(client(&home, Role::Admin).is_err());
        create(&home, &[Role::Admin], false).unwrap();
        assert!(client(&home, Role::Viewer).unwrap_err().to_string().contains("viewer"));
        add_roles(&home, &[Role::Viewer]).unwrap();
        assert_eq!(client(&home, Role::Viewer).unwrap().role(), Role::Viewer);
        assert_eq!(roles(&home), [Role::Admin, Role::Viewer]);
    }

    #[test]
    fn a_certificate_that_has_run_out_is_issued_anew_by_its_ca_only() {
        let (_dir, home) = home();
        create(&home, &[Role::Admin], false).unwrap();
        let ca = load_ca(&home).unwrap();
        let old = ca.issue("x", Role::Admin, Validity { not_before: 1000, not_after: 2000 }).unwrap();
        save(&home.identity(), "client-admin", old.certificate_pem(), old.key_pem().expose()).unwrap();
        assert!(client(&home, Role::Admin).unwrap().validity().contains(now()));
        save(&home.identity(), "client-admin", old.certificate_pem(), old.key_pem().expose()).unwrap();
        fs::remove_file(home.identity().join("owner-ca.key")).unwrap();
        assert_eq!(client(&home, Role::Admin).unwrap_err().exit(), Exit::Denied);
    }
}
