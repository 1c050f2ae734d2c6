//! `postern pod add`: a pod that somebody else started with the owner's init data.

use std::path::PathBuf;

use postern_launch::{EncodedInitData, InitData, decode_device, decode_toml, init_data::MAGIC};
use postern_model::{HostData, PodName};

use crate::{
    cli::{Risk, only},
    door::{Endpoint, EndpointError, Owner},
    exit::Exit,
    failure::{Failure, OrFail},
    home::{self, Existing},
    launch::{self, ShapeArgs},
    output,
    record::{self, Origin, PodRecord},
    trust::TrustStore,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The endpoint is only an address; the pod has to prove everything else. The measurement comes from the guest image and the shape it is launched in, or from the trust store.\n\nExamples:\n  postern pod add web --endpoint tcp://10.1.2.3:50090 --init-data web.toml --image-dir ./image --cpus 2 --memory 512M\n  postern pod add web --endpoint unix:///run/web.sock --init-data web.toml\n  postern pod add web --endpoint 'exec:ssh node nc 10.1.2.3 50090' --init-data web.toml --image-dir ./image --shape shape.json"
)]
pub(crate) struct Args {
    /// Name for the pod
    #[arg(value_name = "NAME", value_parser = launch::parse::<PodName>)]
    name: PodName,
    /// tcp://HOST:PORT, unix:///PATH or exec:COMMAND
    #[arg(long, value_name = "URL", value_parser = endpoint)]
    endpoint: Endpoint,
    /// The init data that the pod was launched with: the TOML text, or the block device made from it
    #[arg(long, value_name = "FILE")]
    init_data: PathBuf,
    /// Expect the measurement of this guest image, launched in the shape given beside it
    #[arg(long, value_name = "DIR")]
    image_dir: Option<PathBuf>,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Accept a risk by name: simulated-tee lets a simulated platform of the trust store vouch for this pod,
    /// mitigations-off goes with --mitigations=off
    #[arg(long, value_name = "RISK", value_parser = only([Risk::SimulatedTee, Risk::MitigationsOff]))]
    accept_risk: Vec<Risk>,
}

fn endpoint(text: &str) -> Result<Endpoint, EndpointError> {
    text.parse()
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let (content, init_data, host_data) = read_init_data(&args.init_data)?;
    if init_data.pod != args.name {
        output::notice(&format!("note: the init data calls this pod {}", init_data.pod));
    }
    let shape = args.image_dir.is_some().then(|| args.shape.shape()).transpose()?;
    let measurements = match (&args.image_dir, &shape) {
        (Some(dir), Some(shape)) => {
            launch::accept_mitigations(shape.mitigations, init_data.owners(), &args.accept_risk)?;
            vec![launch::measurement(dir, shape)?]
        }
        _ => Vec::new(),
    };
    if measurements.is_empty() && TrustStore::load(&owner.home)?.measurements().is_empty() {
        return Err(Failure::usage("there is no reference value for the pod's measurement")
            .hint("add --image-dir DIR, or first `postern trust add --image-dir DIR`"));
    }
    let dir = PodRecord::reserve(&owner.home, &args.name)?;
    let mut record = PodRecord::new(args.name.clone(), args.endpoint.to_string(), Origin::Added, host_data);
    record.accepts_simulated = args.accept_risk.contains(&Risk::SimulatedTee);
    record.measurements = measurements;
    record.shape = shape;
    let saved = home::write_private(&dir.join("initdata.toml"), &content, Existing::Replace)
        .and_then(|()| record.save(&owner.home));
    if let Err(failure) = saved {
        record::remove(&owner.home, &args.name)?;
        return Err(failure);
    }
    output::line(&format!("{} added; next: postern pod verify {}", args.name, args.name))?;
    Ok(Exit::Done)
}

/// The file as it is, what it says, and the digest that the launch must carry.
fn read_init_data(path: &std::path::Path) -> Result<(Vec<u8>, InitData, HostData), Failure> {
    let content = home::read(path)?.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("cannot read {}", path.display())).caused_by("it does not exist")
    })?;
    let decoded = match content.starts_with(MAGIC) {
        true => decode_device(&content),
        false => EncodedInitData::from_toml(&content)
            .and_then(|encoded| Ok((decode_toml(&content)?, encoded.digest()))),
    };
    let (init_data, host_data) = decoded.or_fail(|| format!("{} is not init data", path.display()))?;
    Ok((content, init_data, host_data))
}
