//! `postern pod init-data`: what the owner gives to whoever starts a pod elsewhere. Its digest is what the pod must prove.

use std::path::PathBuf;

use postern_launch::{EncodedInitData, InitData, Mode, encode};
use postern_model::PodName;
use ring::rand::{SecureRandom, SystemRandom};

use crate::{
    door::Owner,
    exit::Exit,
    failure::Failure,
    home::{self, Existing},
    identity,
    launch::parse,
    output,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Holds the owner CA's certificate, the pod's name and a random nonce; nothing secret. Each launch gets its own.\n\nExamples:\n  postern pod init-data web --file web.toml\n  postern pod init-data web --file web.img --device\n  postern pod add web --endpoint tcp://10.1.2.3:50090 --init-data web.toml --image-dir ./image"
)]
pub(crate) struct Args {
    /// Name of the pod
    #[arg(value_name = "NAME", value_parser = parse::<PodName>)]
    name: PodName,
    /// Write it here instead of to standard output; an existing file is kept
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Write the block device that the guest reads, made from the text
    #[arg(long, requires = "file")]
    device: bool,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let ca = identity::load_ca(&owner.home)?;
    let init_data = make(&args.name, ca.certificate_der())?;
    match args.file {
        None => output::print(init_data.toml())?,
        Some(path) => {
            let content = match args.device {
                true => init_data.device(),
                false => init_data.toml().as_bytes().to_vec(),
            };
            home::write_private(&path, &content, Existing::Refuse)?;
            output::line(&format!("{}: digest {}", path.display(), init_data.digest()))?;
        }
    }
    Ok(Exit::Done)
}

/// Init data of one launch, with a nonce that no other launch has.
pub(super) fn make(pod: &PodName, owner_ca: &[u8]) -> Result<EncodedInitData, Failure> {
    let mut instance = [0; 32];
    SystemRandom::new()
        .fill(&mut instance)
        .map_err(|_| Failure::general("no random numbers from the operating system"))?;
    let init_data =
        InitData { pod: pod.clone(), owner_ca_der: owner_ca.to_vec(), instance, mode: Mode::Direct };
    Ok(encode(&init_data))
}
