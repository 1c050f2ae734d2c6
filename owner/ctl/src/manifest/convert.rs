//! From the fields of a manifest to container specifications; a field that cannot be kept is named with its place.

use std::collections::BTreeMap;

use postern_api::{convert::ConvertError, owner as wire};
use postern_model::{
    ContainerName, ContainerSpec, PodName, Resources, RunUser,
    container::{MountKind, MountSpec},
};

use super::{
    ManifestError,
    schema::{Container, Limits, Pod, Quantity, RestartPolicy, SecurityContext, Volume, VolumeMount},
};

fn field(at: impl Into<String>, why: impl Into<String>) -> ManifestError {
    ManifestError::Field { at: at.into(), why: why.into() }
}

pub(super) fn convert(manifest: Pod, pod: &PodName) -> Result<Vec<ContainerSpec>, ManifestError> {
    if manifest.api_version != "v1" || manifest.kind != "Pod" {
        let found = format!("{} {}", manifest.api_version, manifest.kind);
        return Err(field("kind", format!("{found} cannot be applied; only v1 Pod can")));
    }
    if let Some(name) = manifest.metadata.name.as_deref().filter(|name| *name != pod.as_str()) {
        return Err(field("metadata.name", format!("{name:?} is another pod than {pod}")));
    }
    let spec = manifest.spec;
    if spec.containers.is_empty() {
        return Err(field("spec.containers", "there are none"));
    }
    let volumes = Volumes::new(&spec.volumes, &spec.containers)?;
    // Kubernetes' default is Always.
    let host_may_start = spec.restart_policy != Some(RestartPolicy::Never);
    let mut specs: Vec<ContainerSpec> = Vec::new();
    for (index, container) in spec.containers.into_iter().enumerate() {
        let at = format!("spec.containers[{index}]");
        let mut converted = convert_container(container, &at, &volumes)?;
        if specs.iter().any(|known| known.name == converted.name) {
            return Err(field(format!("{at}.name"), format!("{:?} is there twice", converted.name.as_str())));
        }
        converted.host_may_start = host_may_start;
        converted.hostname.clone_from(&spec.hostname);
        converted.labels.clone_from(&manifest.metadata.labels);
        specs.push(converted);
    }
    Ok(specs)
}

fn convert_container(
    container: Container,
    at: &str,
    volumes: &Volumes,
) -> Result<ContainerSpec, ManifestError> {
    let name: ContainerName =
        container.name.parse().map_err(|error| field(format!("{at}.name"), format!("{error}")))?;
    if container.image.is_empty() {
        return Err(field(format!("{at}.image"), "it is empty"));
    }
    let mut env = BTreeMap::new();
    for variable in container.env {
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
            return Err(field(format!("{at}.env"), format!("{:?} is no variable's name", variable.name)));
        }
        let value = expand(&variable.value, &env);
        env.insert(variable.name, value);
    }
    let expanded = |words: Vec<String>| words.iter().map(|word| expand(word, &env)).collect::<Vec<_>>();
    let mut spec = ContainerSpec::new(name, container.image);
    let command = expanded(container.command);
    spec.entrypoint = (!command.is_empty()).then_some(command);
    spec.args = expanded(container.args);
    spec.working_dir = container.working_dir.map(Into::into);
    spec.terminal = container.tty;
    spec.stdin = container.stdin;
    spec.resources = limits(&container.resources.limits, at)?;
    for (index, mount) in container.volume_mounts.iter().enumerate() {
        spec.mounts.push(volumes.mount(mount, &format!("{at}.volumeMounts[{index}]"))?);
    }
    secure(&mut spec, container.security_context, at)?;
    spec.env = env;
    // The wire's own rules, so that what is refused is refused before it is sent.
    ContainerSpec::try_from(wire::ContainerSpec::from(spec))
        .map_err(|error: ConvertError| field(at, error.to_string()))
}

fn secure(spec: &mut ContainerSpec, context: SecurityContext, at: &str) -> Result<(), ManifestError> {
    if context.allow_privilege_escalation == Some(true) {
        let at = format!("{at}.securityContext.allowPrivilegeEscalation");
        return Err(field(at, "no container gets new privileges here"));
    }
    spec.read_only_rootfs = context.read_only_root_filesystem;
    spec.user = match (context.run_as_user, context.run_as_group) {
        (Some(user), Some(group)) => RunUser::Named(format!("{user}:{group}")),
        (Some(user), None) => RunUser::Named(user.to_string()),
        (None, None) => RunUser::Image,
        (None, Some(_)) => {
            let at = format!("{at}.securityContext.runAsGroup");
            return Err(field(at, "it needs runAsUser beside it"));
        }
    };
    spec.add_capabilities = context.capabilities.add;
    spec.drop_capabilities = context.capabilities.drop;
    Ok(())
}

fn limits(limits: &Limits, at: &str) -> Result<Resources, ManifestError> {
    let at = |name: &str| format!("{at}.resources.limits.{name}");
    let memory = limits.memory.as_ref().map(bytes).transpose().map_err(|why| field(at("memory"), why))?;
    let cpu_millis = match &limits.cpu {
        None => None,
        Some(cpu) => Some(crate::human::parse_cpus(&cpu.0).map_err(|why| field(at("cpu"), why))?),
    };
    Ok(Resources { memory, cpu_millis, pids: None })
}

/// Kubernetes' suffixes: `k`, `M`, `G` are powers of 1000, `Ki`, `Mi`, `Gi` of 1024.
fn bytes(quantity: &Quantity) -> Result<u64, String> {
    let text = quantity.0.as_str();
    let wrong = || format!("{text:?} is not a quantity of bytes; use for example 128Mi");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let scale = match suffix {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    match number.parse::<f64>() {
        Ok(value) if value > 0.0 && value * scale < 2f64.powi(53) => Ok((value * scale) as u64),
        _ => Err(wrong()),
    }
}

/// `$(NAME)` becomes a variable's value and `$$(` a plain `$(`; a name that is not defined stays as it is.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
            continue;
        }
        let reference = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')'));
        match reference.and_then(|(name, after)| Some((env.get(name)?, after))) {
            Some((value, after)) => {
                out.push_str(value);
                rest = after;
            }
            None => {
                out.push('$');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

/// The pod's volumes by name, each as what a mount of it becomes.
struct Volumes(BTreeMap<String, MountKind>);

impl Volumes {
    fn new(volumes: &[Volume], containers: &[Container]) -> Result<Self, ManifestError> {
        let mut kinds = BTreeMap::new();
        for (index, volume) in volumes.iter().enumerate() {
            let at = format!("spec.volumes[{index}]");
            let name: ContainerName =
                volume.name.parse().map_err(|error| field(format!("{at}.name"), format!("{error}")))?;
            let mounts = containers.iter().flat_map(|container| &container.volume_mounts);
            let users = mounts.filter(|mount| mount.name == volume.name).count();
            let kind = match (volume.empty_dir.medium.as_deref(), &volume.empty_dir.size_limit) {
                (None | Some(""), None) => MountKind::Volume { name },
                (Some("Memory"), limit) if users <= 1 => MountKind::Tmpfs {
                    size: limit
                        .as_ref()
                        .map(bytes)
                        .transpose()
                        .map_err(|why| field(format!("{at}.emptyDir.sizeLimit"), why))?,
                },
                (Some("Memory"), _) => {
                    return Err(field(
                        format!("{at}.emptyDir.medium"),
                        "a volume in memory belongs to one container; leave the medium away to share it",
                    ));
                }
                (None | Some(""), Some(_)) => {
                    return Err(field(
                        format!("{at}.emptyDir.sizeLimit"),
                        "only a volume with medium Memory has a size",
                    ));
                }
                (Some(other), _) => {
                    return Err(field(
                        format!("{at}.emptyDir.medium"),
                        format!("{other:?} is unknown; use Memory or leave it away"),
                    ));
                }
            };
            if kinds.insert(volume.name.clone(), kind).is_some() {
                return Err(field(format!("{at}.name"), format!("{:?} is there twice", volume.name)));
            }
        }
        Ok(Self(kinds))
    }

    fn mount(&self, mount: &VolumeMount, at: &str) -> Result<MountSpec, ManifestError> {
        let kind = self.0.get(&mount.name).cloned();
        let kind =
            kind.ok_or_else(|| field(format!("{at}.name"), format!("there is no volume {:?}", mount.name)))?;
        Ok(MountSpec { destination: mount.mount_path.clone().into(), kind, read_only: mount.read_only })
    }
}
