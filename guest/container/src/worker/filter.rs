//! From a seccomp profile to the program that the kernel takes.

use std::{
    fs::File,
    io::{self, Read, Seek},
};

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall, error::SeccompError,
};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::runtime::Failure;

/// Sort rules into a binary tree, so that frequent calls are not at the end of a long list (libseccomp,
/// SCMP_FLTATR_CTL_OPTIMIZE).
const BINARY_TREE: u32 = 2;

/// Compiles `profile`. Refuses what it does not understand: a filter with a hole is worse than none.
pub(super) fn compile(profile: &LinuxSeccomp) -> Result<Vec<u8>, Failure> {
    build(profile).map_err(|error| Failure::system("seccomp filter", error))
}

fn build(profile: &LinuxSeccomp) -> Result<Vec<u8>, io::Error> {
    let seccomp = |error: SeccompError| io::Error::other(error.to_string());
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut context = ScmpFilterContext::new(default).map_err(seccomp)?;
    context.set_ctl_optimize(BINARY_TREE).map_err(seccomp)?;
    // A call by another architecture's numbers is an attempt to get around the filter.
    context.set_act_badarch(ScmpAction::KillProcess).map_err(seccomp)?;
    for architecture in profile.architectures().iter().flatten() {
        match architecture {
            Arch::ScmpArchX86_64 => context.add_arch(ScmpArch::X8664).map_err(seccomp)?,
            other => return Err(io::Error::other(format!("architecture {other:?} is not supported"))),
        };
    }
    for rule in profile.syscalls().iter().flatten() {
        let action = action(rule.action(), rule.errno_ret())?;
        if action == default {
            continue;
        }
        for call in calls(rule) {
            match conditions(rule)? {
                conditions if conditions.is_empty() => context.add_rule(action, call),
                conditions => context.add_rule_conditional(action, call, &conditions),
            }
            .map_err(seccomp)?;
        }
    }
    let file = memfd_create("seccomp-filter", MemfdFlags::CLOEXEC)?;
    context.export_bpf(&file).map_err(seccomp)?;
    let mut file = File::from(file);
    file.rewind()?;
    let mut program = Vec::new();
    file.read_to_end(&mut program)?;
    Ok(program)
}

/// A name that this libseccomp does not know is newer than it. The default action stands for it, which is a refusal.
fn calls(rule: &LinuxSyscall) -> impl Iterator<Item = ScmpSyscall> {
    rule.names().iter().filter_map(|name| ScmpSyscall::from_name(name).ok())
}

fn conditions(rule: &LinuxSyscall) -> io::Result<Vec<ScmpArgCompare>> {
    rule.args().iter().flatten().map(condition).collect()
}

fn condition(argument: &LinuxSeccompArg) -> io::Result<ScmpArgCompare> {
    let index = u32::try_from(argument.index()).map_err(io::Error::other)?;
    let (operator, datum) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, argument.value()),
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, argument.value()),
        // In OCI's words `value` is the mask and `valueTwo` what the masked argument must be.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(argument.value()), argument.value_two().unwrap_or(0))
        }
        other => return Err(io::Error::other(format!("comparison {other:?} is not supported"))),
    };
    Ok(ScmpArgCompare::new(index, operator, datum))
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> io::Result<ScmpAction> {
    match action {
        LinuxSeccompAction::ScmpActAllow => Ok(ScmpAction::Allow),
        LinuxSeccompAction::ScmpActErrno => {
            Ok(ScmpAction::Errno(i32::try_from(errno.unwrap_or(1)).map_err(io::Error::other)?))
        }
        LinuxSeccompAction::ScmpActKillProcess => Ok(ScmpAction::KillProcess),
        other => Err(io::Error::other(format!("action {other:?} is not supported"))),
    }
}
