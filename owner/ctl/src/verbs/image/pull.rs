//! `postern image pull`: the pod fetches an image itself, so that no byte of it passes this machine.

use std::{io::IsTerminal, time::Duration};

use postern_api::owner::{Image, PullRequest, pull_response::Kind};
use postern_model::{ImageReference, PodName};

use super::super::show;
use crate::{
    door::{Intent, Owner, Session, Subject},
    exit::Exit,
    failure::{Failure, OrFail},
    launch::parse,
    output::{self, Format, FormatArg},
    progress, text,
};

/// Longest silence of a pull. The pod has shorter deadlines of its own towards the registry.
const SILENCE: Duration = Duration::from_secs(300);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The pod checks all content against its digests; pin an image with @sha256:… to fix the content too.\n\nExamples:\n  postern image pull demo docker.io/library/busybox:1.36\n  postern image pull --plain-http demo 10.0.2.2:5000/job@sha256:…\n  postern image pull --username me --password-stdin demo registry.example/job < token"
)]
pub(crate) struct Args {
    /// Name of the pod
    #[arg(value_name = "POD", value_parser = parse::<PodName>)]
    pod: PodName,
    /// [REGISTRY/]NAME[:TAG][@sha256:DIGEST]
    #[arg(value_name = "REFERENCE", value_parser = parse::<ImageReference>)]
    reference: ImageReference,
    /// Speak HTTP without TLS to the registry
    #[arg(long)]
    plain_http: bool,
    #[command(flatten)]
    credentials: Credentials,
    #[command(flatten)]
    output: FormatArg,
}

/// Who the pod is at a registry.
#[derive(Debug, clap::Args)]
pub(in crate::verbs) struct Credentials {
    /// User name at the registry
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    pub(in crate::verbs) password_stdin: bool,
}

impl Credentials {
    /// A pull of `reference`. Reads standard input, where the password is to come from there.
    pub(in crate::verbs) fn request(
        &self,
        reference: String,
        plain_http: bool,
    ) -> Result<PullRequest, Failure> {
        let password = if self.password_stdin { password()? } else { String::new() };
        Ok(PullRequest {
            reference,
            username: self.username.clone().unwrap_or_default(),
            password,
            plain_http,
        })
    }
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let request = args.credentials.request(args.reference.to_string(), args.plain_http)?;
    let session = Session::open(owner, &args.pod, Intent::Change).await?;
    let image = pull(&session, request).await?;
    print(&image, args.output.format)?;
    Ok(Exit::Done)
}

fn password() -> Result<String, Failure> {
    if std::io::stdin().is_terminal() {
        return Err(Failure::usage("standard input is a terminal, which would show the password")
            .hint("pipe it in: `… --username NAME --password-stdin < file`"));
    }
    let mut text = String::new();
    std::io::stdin().read_line(&mut text).or_fail(|| "cannot read the password".into())?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// What `push` and `pull` print.
pub(in crate::verbs) fn print(image: &Image, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => output::json(&show::image(image)),
        Format::Text => output::line(&text::clean(&format!("{}@{}", image.reference, image.digest))),
    }
}

/// Pulls, and shows how far it is.
pub(in crate::verbs) async fn pull(session: &Session, request: PullRequest) -> Result<Image, Failure> {
    let doing = format!("pull image {}", request.reference);
    let subject = Subject { pod: session.name(), doing: &doing };
    let bar = progress::bytes(&format!("pulling {}", request.reference), 0);
    let outcome = async {
        let mut answers = session.open_stream(subject, session.images().pull(request)).await?;
        loop {
            let answer = tokio::time::timeout(SILENCE, answers.message()).await.map_err(|_| {
                Failure::new(Exit::Unreachable, format!("cannot {doing}"))
                    .caused_by(format!("no progress for {} s", SILENCE.as_secs()))
            })?;
            match answer.map_err(|status| session.failure(subject, &status))?.and_then(|answer| answer.kind) {
                Some(Kind::Progress(progress)) => {
                    bar.set_length(progress.total_bytes);
                    bar.set_position(progress.received_bytes);
                }
                Some(Kind::Done(image)) => return Ok(image),
                None => {
                    return Err(Failure::general(format!("cannot {doing}"))
                        .caused_by("the pod ended the pull without saying what it stored"));
                }
            }
        }
    }
    .await;
    bar.finish_and_clear();
    outcome
}
