//! `postern init`: the owner's identity.

use postern_model::Role;

use crate::{
    cli::{Risk, only},
    door::Owner,
    exit::Exit,
    failure::Failure,
    human, identity,
    launch::parse,
    output,
};

const EXAMPLES: &str = "\
Makes an owner CA and a client certificate with role admin below $XDG_CONFIG_HOME/postern/identity, readable by you alone.
Pods are made for one owner CA and obey certificates of that CA only.

Roles: admin (everything) · operator (run, exec, cp) · viewer (list, logs, stats) · auditor (the audit of host calls)

Examples:
  postern init
  postern init --role viewer --role auditor      more certificates; use them with `postern --as viewer …`
  postern init --accept-risk=replace-identity    a new identity; the old one is kept beside it";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Also issue a certificate for this role; repeat for more
    #[arg(long, value_name = "ROLE", value_parser = parse::<Role>)]
    role: Vec<Role>,
    /// Accept a risk by name
    #[arg(long, value_name = "RISK", value_parser = only([Risk::ReplaceIdentity]))]
    accept_risk: Vec<Risk>,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let replace = args.accept_risk.contains(&Risk::ReplaceIdentity);
    let exists = identity::exists(&owner.home).unwrap_or(true);
    if exists && !replace && !args.role.is_empty() {
        identity::add_roles(&owner.home, &args.role)?;
    } else {
        let mut roles = vec![Role::Admin];
        roles.extend(args.role.iter().filter(|role| **role != Role::Admin));
        let created = identity::create(&owner.home, &roles, replace)?;
        if let Some(kept) = created.kept {
            output::line(&format!("kept the identity before in {}", kept.display()))?;
        }
    }
    let ca = identity::load_ca(&owner.home)?;
    let roles: Vec<String> = identity::roles(&owner.home).iter().map(ToString::to_string).collect();
    let until =
        |validity: postern_tunnel::Validity| human::rfc3339(validity.not_after * 1000)[..10].to_owned();
    let client = identity::client(&owner.home, Role::Admin).ok();
    output::print(&format!(
        "owner identity in {}\n  CA      {} (P-256, until {})\n  roles   {}{}\nnext: postern pod create NAME --accept-risk=simulated-tee\n",
        owner.home.identity().display(),
        fingerprint(ca.certificate_der()),
        until(ca.validity()),
        roles.join(", "),
        client
            .map(|client| format!(" (until {}, renewed by themselves)", until(client.validity())))
            .unwrap_or_default(),
    ))?;
    Ok(Exit::Done)
}

fn fingerprint(der: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    format!("sha256:{}", hex::encode(digest))
}
