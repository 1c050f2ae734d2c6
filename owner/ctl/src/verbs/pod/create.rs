//! `postern pod create`: boots a pod on this machine through postern-host, verifies it and takes it over. Whatever fails or
//! is interrupted, nothing of the pod stays behind.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use postern_api::owner::InspectPodRequest;
use postern_disk::PackedDisk;
use postern_launch::{
    Accelerator, Cpus, EncodedInitData, Machine, Mitigations, PodShape, TeePlatform, expected_measurement,
};
use postern_model::{HostData, Measurement, PodName};
use serde_json::json;

use super::{super::trust::simulated_risk, init_data, verify};
use crate::{
    cli::{Risk, only},
    door::{Owner, Plan, Session, VerifyError},
    exit::Exit,
    failure::{Failure, OrFail},
    home::{self, Existing},
    host::{HostProgram, Stage, StartRequest},
    human, identity, image, launch,
    launch::parse,
    output::{self, Format, FormatArg},
    process::signals,
    progress,
    record::{self, Origin, PodRecord},
    timeline::{self, Clock},
    trust::{self, Entry, TrustStore},
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The pod's init data, with a nonce of its own, and the measurement that it must have are made here; nothing of the host is believed.\n\nExamples:\n  postern pod create demo --accept-risk=simulated-tee\n  postern pod create big --memory 1G --cpus 2 --timeline --accept-risk=simulated-tee\n  postern pod create web --image-disk web.disk --accept-risk=simulated-tee"
)]
pub(crate) struct Args {
    /// Name of the pod
    #[arg(value_name = "NAME", value_parser = parse::<PodName>)]
    name: PodName,
    /// Accept a risk by name; pods on this machine are simulated-tee
    #[arg(long, value_name = "RISK", value_parser = only([Risk::SimulatedTee, Risk::MitigationsOff]))]
    accept_risk: Vec<Risk>,
    /// Memory of the VM; 256M when left out
    #[arg(long, short, value_name = "SIZE", value_parser = human::parse_memory)]
    memory: Option<u64>,
    /// Virtual CPUs; 1 when left out
    #[arg(long, value_name = "N", value_parser = parse::<Cpus>)]
    cpus: Option<Cpus>,
    /// Machine type: microvm, or q35 with an image whose kernel is for it; chosen by probing when left out
    #[arg(long, value_name = "MACHINE", value_parser = parse::<Machine>)]
    machine: Option<Machine>,
    /// Whether the guest's kernel works around the CPU's leaks: on or off. Off makes the pod a single trust domain; it is
    /// measured, shown by `pod verify` and asks for --accept-risk=mitigations-off
    #[arg(long, value_name = "ON|OFF", value_parser = parse::<Mitigations>, default_value_t)]
    mitigations: Mitigations,
    /// Directory of the guest image
    #[arg(long, value_name = "DIR")]
    image_dir: Option<PathBuf>,
    /// Where the tunnel is reached on this machine; any free port of loopback when left out
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<std::net::SocketAddr>,
    /// Have the host attach an image disk and use it in the pod: a file that `postern image pack` made, or the root hash
    /// of one; repeatable
    #[arg(long = "image-disk", value_name = "FILE")]
    image_disks: Vec<PathBuf>,
    /// Print how long each stage took, the guest's own by its own clock
    #[arg(long)]
    timeline: bool,
    #[command(flatten)]
    output: FormatArg,
}

/// How long a booted guest may take to answer, and the pause between two tries.
const FIRST_CONTACT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// What was made, for the last lines.
struct Made {
    record: PodRecord,
    checks: Vec<verify::CheckResult>,
    simulated: bool,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    if !args.accept_risk.contains(&Risk::SimulatedTee) {
        return Err(simulated_risk("create a pod on a simulated TEE"));
    }
    launch::accept_mitigations(args.mitigations, launch::OWNERS, &args.accept_risk)?;
    let ca = identity::load_ca(&owner.home)?;
    let host = HostProgram::find(&owner.config)?;
    let dir = PodRecord::reserve(&owner.home, &args.name)?;
    let mut created = Created { owner, host: &host, name: &args.name, on_host: None };
    let outcome = tokio::select! {
        outcome = create(&args, owner, ca.certificate_der(), dir, &mut created) => outcome,
        signal = signals::asked_to_end() => {
            Err(Failure::interrupted(signal, format!("interrupted; pod {} was taken down", args.name)))
        }
    };
    match outcome {
        Ok(made) => {
            print(&args, &made)?;
            Ok(Exit::Done)
        }
        Err(failure) => Err(created.undo(failure).await),
    }
}

/// What has to be undone when it does not come to a pod.
struct Created<'a> {
    owner: &'a Owner,
    host: &'a HostProgram,
    name: &'a PodName,
    /// With what the host was asked to start it, once it was: it may have a pod of this name that is another's.
    on_host: Option<HostData>,
}

impl Created<'_> {
    async fn undo(self, failure: Failure) -> Failure {
        if let Some(host_data) = self.on_host
            && let Err(left) = self.host.remove(self.name, Some(host_data)).await
        {
            left.print();
            output::notice(&format!("hint: `postern-host rm {}` removes what is left of the VM", self.name));
        }
        if let Err(left) = record::remove(&self.owner.home, self.name) {
            left.print();
        }
        failure
    }
}

/// What is known before anything is started.
struct Prepared {
    image_dir: PathBuf,
    shape: PodShape,
    measurement: Measurement,
    init_data: EncodedInitData,
    simulated_root: Option<PathBuf>,
    /// Files of image disks, and what each of them must be.
    disks: (Vec<PathBuf>, Vec<PackedDisk>),
}

async fn create(
    args: &Args,
    owner: &Owner,
    owner_ca: &[u8],
    dir: PathBuf,
    created: &mut Created<'_>,
) -> Result<Made, Failure> {
    let mut clock = Clock::new();
    let bar = progress::stages(&format!("pod {}: preparing", args.name));
    let prepared = prepare(args, owner, owner_ca, created.host).await?;
    let init_data = dir.join("initdata.toml");
    home::write_private(&init_data, prepared.init_data.toml().as_bytes(), Existing::Refuse)?;
    // Nothing secret: whoever adds this pod elsewhere needs it beside the init data.
    let shape = serde_json::to_vec(&prepared.shape).or_fail(|| "cannot write JSON".into())?;
    home::write_private(&dir.join("shape.json"), &shape, Existing::Refuse)?;
    clock.lap("prepare");
    created.on_host = Some(prepared.init_data.digest());
    let listen = args.listen.map(|address| address.to_string());
    let request = StartRequest {
        name: &args.name,
        image_dir: &prepared.image_dir,
        init_data: &init_data,
        shape: &prepared.shape,
        listen: listen.as_deref(),
        disks: &prepared.disks.0,
    };
    bar.set_message(format!("pod {}: starting the VM", args.name));
    let report = |stage: &Stage| bar.set_message(format!("pod {}: {} done", args.name, stage.stage));
    let (address, stages) = created.host.start(&request, report).await?;
    clock.lap_with("host", stages);
    trust_simulated(owner, prepared.simulated_root)?;
    let mut record = PodRecord::new(
        args.name.clone(),
        format!("tcp://{address}"),
        Origin::Created,
        prepared.init_data.digest(),
    );
    record.accepts_simulated = true;
    record.measurements = vec![prepared.measurement];
    record.shape = Some(prepared.shape);
    bar.set_message(format!("pod {}: verifying", args.name));
    let verified = first_contact(owner, &record).await?;
    clock.lap("tunnel");
    let checks = verify::passed(&verified.attested);
    let mut session = Session::begin(record, verified.stream, verified.attested).await?;
    session.pin(owner)?;
    session.hand_over(owner).await?;
    clock.lap("handover");
    for disk in &prepared.disks.1 {
        image::push_disk(&session, disk, None).await?;
    }
    if !prepared.disks.1.is_empty() {
        clock.lap("disks");
    }
    let mut timeline = clock.stages();
    if args.timeline || args.output.format == Format::Json {
        let asked = session.call("inspect the pod", session.pod().inspect(InspectPodRequest {})).await?;
        timeline = timeline::told_by_guest(timeline, &asked.boot);
    }
    session.keep_timeline(owner, timeline)?;
    bar.finish_and_clear();
    Ok(Made { simulated: session.is_simulated(), record: session.record().clone(), checks })
}

async fn prepare(
    args: &Args,
    owner: &Owner,
    owner_ca: &[u8],
    host: &HostProgram,
) -> Result<Prepared, Failure> {
    let image_dir = launch::image_dir(args.image_dir.clone(), &owner.config)?;
    let image_dir = image_dir.canonicalize().or_fail(|| format!("cannot find {}", image_dir.display()))?;
    let manifest = launch::load_image(&image_dir)?;
    let probe = host.probe(&image_dir).await?;
    let defaults = &owner.config.pod;
    let disks = args.image_disks.iter().map(|disk| image::image_disk(&owner.home, disk));
    let (disks, packed) = disks.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    let shape = PodShape {
        machine: args.machine.or(defaults.machine).unwrap_or(probe.machine),
        accelerator: probe.accelerator,
        cpus: match args.cpus.or(defaults.cpus) {
            Some(cpus) => cpus,
            None => Cpus::new(1).or_fail(|| "cannot give the pod a CPU".into())?,
        },
        memory_mib: launch::memory_mib(args.memory.or(defaults.memory))?,
        // Under KVM the guest asks its hypervisor, and nothing of it is in the command line.
        tsc_khz: probe.tsc_khz.filter(|_| probe.accelerator == Accelerator::Tcg),
        tee: TeePlatform::Simulated,
        mitigations: args.mitigations,
    };
    let init_data = init_data::make(&args.name, owner_ca)?;
    let measurement = expected_measurement(&manifest, &shape);
    let simulated_root = probe.simulated_root;
    Ok(Prepared { image_dir, shape, measurement, init_data, simulated_root, disks: (disks, packed) })
}

/// The user has accepted the simulated platform of this machine: its root goes into the trust store, as what it is.
fn trust_simulated(owner: &Owner, root: Option<PathBuf>) -> Result<(), Failure> {
    let Some(path) = root else { return Ok(()) };
    let Some(pem) = home::read_text(&path)? else {
        return Err(Failure::general("cannot find the root of this machine's simulated platform")
            .caused_by(format!("{} does not exist", path.display())));
    };
    let root = trust::simulated_root("this machine", &pem)?;
    if TrustStore::load(&owner.home)?.has_root(&root) {
        return Ok(());
    }
    let name = trust::made_up_name(&root);
    trust::add(&owner.home, &name, &Entry::SimulatedRoot { pem })?;
    output::notice(&format!("trusting this machine's SIMULATED platform as {name}: it protects nothing"));
    Ok(())
}

/// A guest that has just booted may need a moment before it answers; a failed check is final at once.
async fn first_contact(owner: &Owner, record: &PodRecord) -> Result<crate::door::Verified, Failure> {
    let plan = Plan::new(owner, record)?;
    let deadline = Instant::now() + FIRST_CONTACT;
    loop {
        match plan.carry_out().await {
            Ok(verified) => return Ok(verified),
            Err(error @ VerifyError::Connect(_)) if error.check_failure().is_some() => {
                return Err(error.into_failure(record));
            }
            Err(error) if Instant::now() >= deadline => return Err(error.into_failure(record)),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn print(args: &Args, made: &Made) -> Result<(), Failure> {
    let Made { record, checks, simulated } = made;
    let total: u64 = record.timeline.iter().map(|stage| stage.millis).sum();
    if args.output.format == Format::Json {
        return output::json(&json!({
            "pod": record.name,
            "endpoint": record.endpoint,
            "simulated": simulated,
            "millis": total,
            "shape": record.shape,
            "timeline": record.timeline,
            "checks": verify::json(checks),
            "mitigations": args.mitigations,
            "instance": record.instance,
            "owned": record.owned,
        }));
    }
    let mut text =
        format!("pod {} is up after {:.1} s\n{}", record.name, total as f64 / 1000.0, verify::lines(checks));
    text.push_str(&verify::mitigations_line(Some(args.mitigations)));
    if args.timeline {
        text.push_str(&timeline::lines(&record.timeline));
    }
    text.push_str("the pod is yours: the host can no longer create or touch its containers\n");
    if *simulated {
        text.push_str("SIMULATED TEE: shows every step, protects nothing\n");
    }
    text.push_str(&format!("next: postern run {} IMAGE\n", record.name));
    output::print(&text)
}
