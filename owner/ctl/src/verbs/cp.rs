//! `postern cp`: files and directories between this machine and a container, by docker's rules.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use indicatif::ProgressBar;
use postern_api::{
    bulk,
    owner::{
        CopyInBegin, CopyInRequest, CopyInResponse, CopyOutRequest, CopyOutResponse, copy_in_request,
        copy_out_response,
    },
};
use tonic::{Code, Status};

use crate::{
    copy::{
        pack::{Links, PackError, Source},
        pipe::{self, PipeWriter},
        place::{Place, RemotePath, asks_for_content, asks_for_directory, landing},
        transfer::{UploadError, upload},
        unpack::{Unpacked, unpack},
    },
    door::{Intent, Owner, Session, Subject},
    exit::Exit,
    failure::{Failure, OrFail},
    launch::parse,
    output::notice,
    process::output::{Screen, Writer},
    progress,
    target::Target,
};

const EXAMPLES: &str = "\
One side is POD/CONTAINER:PATH, the other a path here, or - for a tar stream. As in docker:
  a directory is copied into an existing directory, and becomes a missing one;  SOURCE/. copies its content
Nothing is written outside the destination, and a file appears when it is whole.

Examples:
  postern cp ./site demo/web:/srv
  postern cp demo/web:/var/log/app.log .
  postern cp demo/web:/srv/. ./backup
  tar c ./conf | postern cp - demo/web:/etc";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to copy
    #[arg(value_name = "SOURCE", value_parser = parse::<Place>)]
    source: Place,
    /// Where to
    #[arg(value_name = "DESTINATION", value_parser = parse::<Place>)]
    destination: Place,
    /// Copy what a symlink at the end of SOURCE points to
    #[arg(long, short = 'L')]
    follow_link: bool,
    /// Keep owners by number when copying in; otherwise the container's user owns the files
    #[arg(long, short)]
    archive: bool,
    /// Do not say what was copied
    #[arg(long, short)]
    quiet: bool,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    match (&args.source, &args.destination) {
        (Place::Remote { target, path }, Place::Local(to)) => {
            copy_out(owner, &args, target, path, to).await?
        }
        (Place::Remote { target, path }, Place::Stream) => stream_out(owner, &args, target, path).await?,
        (Place::Local(from), Place::Remote { target, path }) => {
            copy_in(owner, &args, from, target, path).await?
        }
        (Place::Stream, Place::Remote { target, path }) => stream_in(owner, &args, target, path).await?,
        _ => {
            return Err(Failure::usage("exactly one side must be POD/CONTAINER:PATH")
                .hint("between containers, pipe: `postern cp A - | postern cp - B`"));
        }
    }
    Ok(Exit::Done)
}

// ---- in ---------------------------------------------------------------------------------------------------------------

/// One attempt to copy in: what to pack, and where it goes.
struct CopyIn<'a> {
    container: &'a str,
    directory: &'a str,
    preserve_owner: bool,
}

async fn copy_in(owner: &Owner, args: &Args, from: &Path, target: &Target, to: &str) -> Result<(), Failure> {
    let links = if args.follow_link { Links::FollowFirst } else { Links::Keep };
    let content = asks_for_content(from);
    let own_name = from.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    if own_name.is_none() && !content {
        return Err(Failure::usage(format!("{} has no name that can be copied", from.display()))
            .hint(format!("write {}/. to copy what is in it", from.display())));
    }
    let mut source = Source { path: from.to_owned(), name: if content { None } else { own_name }, links };
    let cannot = || format!("cannot copy {}", from.display());
    let total = source.total_bytes().or_fail(cannot).map_err(|failure| missing(failure, from))?;
    if (content || asks_for_directory(from)) && !from.is_dir() {
        return Err(Failure::general(cannot()).caused_by("it is not a directory"));
    }
    let session = Session::open(owner, &target.pod, Intent::Change).await?;
    let to = RemotePath::parse(to);
    let container = target.container.as_str();
    // Into the destination if it is a directory, otherwise beside its name: the pod knows which.
    let first = CopyIn { container, directory: &to.path, preserve_owner: args.archive };
    let bar = progress::bytes("copying", total);
    let mut outcome = send(&session, &first, source.clone(), &bar).await;
    if let (Err(UploadError::Pod(status)), Some((parent, name)), false) = (&outcome, to.split(), to.directory)
        && is_no_directory(status)
    {
        source.name = Some(name.to_owned());
        bar.reset();
        let second = CopyIn { directory: parent, ..first };
        let retried = send(&session, &second, source, &bar).await;
        // A refusal of the directory itself says more than what came of not using it.
        if retried.is_ok() || names_no_directory(status) {
            outcome = retried;
        }
    }
    bar.finish_and_clear();
    let doing = format!("copy {} to {target}:{}", from.display(), to.path);
    let subject = Subject { pod: session.name(), doing: &doing };
    let done = settle(&session, subject, outcome)?;
    if !args.quiet {
        notice(&format!("copied {} to {target}:{}", counted(done.entries, done.bytes), to.path));
    }
    Ok(())
}

fn missing(failure: Failure, path: &Path) -> Failure {
    if path.symlink_metadata().is_err() { failure.with_exit(Exit::NotFound) } else { failure }
}

/// The answer to a directory that is not there, or not one.
fn is_no_directory(status: &Status) -> bool {
    matches!(status.code(), Code::NotFound | Code::FailedPrecondition | Code::InvalidArgument)
}

/// Whether the pod said so in words. They decide only which of two errors is shown.
fn names_no_directory(status: &Status) -> bool {
    ["No such file", "Not a directory"].iter().any(|words| status.message().contains(words))
}

async fn send(
    session: &Session,
    copy: &CopyIn<'_>,
    source: Source,
    bar: &ProgressBar,
) -> Result<CopyInResponse, UploadError<PackError>> {
    let produce = move |out: PipeWriter| match source.pack(out) {
        // A closed stream is the pod's doing, and its answer says more.
        Err(PackError::Stream(_)) => Ok(()),
        other => other,
    };
    send_stream(session, copy, produce, bar).await
}

async fn send_stream<E: Send + 'static>(
    session: &Session,
    copy: &CopyIn<'_>,
    produce: impl FnOnce(PipeWriter) -> Result<(), E> + Send + 'static,
    bar: &ProgressBar,
) -> Result<CopyInResponse, UploadError<E>> {
    let begin = CopyInBegin {
        container: copy.container.to_owned(),
        directory: copy.directory.to_owned(),
        preserve_owner: copy.preserve_owner,
    };
    let first = CopyInRequest { kind: Some(copy_in_request::Kind::Begin(begin)) };
    let wrap = |piece: Bytes| {
        bar.inc(piece.len() as u64);
        CopyInRequest { kind: Some(copy_in_request::Kind::Data(piece)) }
    };
    let mut containers = session.bulk();
    upload(first, wrap, produce, async |stream| containers.copy_in(stream).await).await
}

async fn stream_in(owner: &Owner, args: &Args, target: &Target, to: &str) -> Result<(), Failure> {
    let session = Session::open(owner, &target.pod, Intent::Change).await?;
    let to = RemotePath::parse(to);
    let produce = |mut out: PipeWriter| -> io::Result<()> {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; pipe::PIECE];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return out.flush(),
                Ok(read) if out.write_all(&buffer[..read]).is_err() => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    let container = target.container.as_str();
    let copy = CopyIn { container, directory: &to.path, preserve_owner: args.archive };
    let bar = progress::bytes_open("copying");
    let outcome = send_stream(&session, &copy, produce, &bar).await;
    bar.finish_and_clear();
    let doing = format!("copy standard input to {target}:{}", to.path);
    let done = settle(&session, Subject { pod: session.name(), doing: &doing }, outcome)?;
    if !args.quiet {
        notice(&format!("copied {} to {target}:{}", counted(done.entries, done.bytes), to.path));
    }
    Ok(())
}

fn settle<T, E: std::error::Error + Send + Sync + 'static>(
    session: &Session,
    subject: Subject<'_>,
    outcome: Result<T, UploadError<E>>,
) -> Result<T, Failure> {
    outcome.map_err(|error| match error {
        UploadError::Pod(status) => session.failure(subject, &status),
        UploadError::Local(error) => Failure::general(format!("cannot {}", subject.doing)).caused_by(error),
    })
}

fn counted(entries: u64, bytes: u64) -> String {
    let noun = if entries == 1 { "entry" } else { "entries" };
    format!("{entries} {noun}, {}", crate::human::size(bytes))
}

// ---- out --------------------------------------------------------------------------------------------------------------

/// The pod's side of a copy out, begun.
struct Incoming<'a> {
    session: &'a Session,
    subject: Subject<'a>,
    answers: bulk::Incoming<CopyOutResponse>,
    total_bytes: u64,
}

impl<'a> Incoming<'a> {
    async fn begin(
        session: &'a Session,
        subject: Subject<'a>,
        args: &Args,
        target: &Target,
        path: &str,
    ) -> Result<Self, Failure> {
        let request = CopyOutRequest {
            container: target.container.to_string(),
            path: path.to_owned(),
            follow_link: args.follow_link,
        };
        let mut answers = session.open_stream(subject, session.bulk().copy_out(request)).await?;
        let first = answers.message().await.map_err(|status| session.failure(subject, &status))?;
        match first.and_then(|first| first.kind) {
            Some(copy_out_response::Kind::Begin(begin)) => {
                Ok(Self { session, subject, answers, total_bytes: begin.total_bytes })
            }
            _ => Err(Failure::general(format!("cannot {}", subject.doing))
                .caused_by("the pod sent data without saying what it is")),
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let answer = self.answers.message().await;
            let answer = answer.map_err(|status| self.session.failure(self.subject, &status))?;
            match answer.map(|answer| answer.kind) {
                None => return Ok(None),
                Some(Some(copy_out_response::Kind::Data(data))) if !data.is_empty() => return Ok(Some(data)),
                Some(_) => {}
            }
        }
    }
}

async fn copy_out(owner: &Owner, args: &Args, target: &Target, from: &str, to: &Path) -> Result<(), Failure> {
    let source = RemotePath::parse(from);
    let doing = format!("copy {target}:{} to {}", source.path, to.display());
    let landing = landing(&source, to).or_fail(|| format!("cannot {doing}"))?;
    let shown = match (landing.parent.as_os_str() == ".", &landing.name) {
        (true, Some(name)) => PathBuf::from(name),
        (_, name) => landing.parent.join(name.as_deref().unwrap_or_default()),
    };
    let session = Session::open(owner, &target.pod, Intent::Change).await?;
    let subject = Subject { pod: session.name(), doing: &doing };
    let mut incoming = Incoming::begin(&session, subject, args, target, &source.path).await?;
    let bar = progress::bytes("copying", incoming.total_bytes);
    let (pieces, reader) = pipe::from_tunnel();
    let unpacking = tokio::task::spawn_blocking(move || unpack(reader, &landing));
    let receive = async {
        while let Some(piece) = incoming.next().await? {
            bar.inc(piece.len() as u64);
            // Unpacking has failed, and says why.
            if pieces.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
        }
        let _ = pieces.send(Ok(Bytes::new())).await;
        Ok::<_, Failure>(())
    };
    let received = receive.await;
    drop(pieces);
    let unpacked = unpacking.await.or_fail(|| format!("cannot {doing}"))?;
    bar.finish_and_clear();
    // A cut tunnel also ends the unpacking; the cause is told, not its effect.
    received?;
    let done = unpacked.or_fail(|| format!("cannot {doing}"))?;
    say_skipped(&done);
    if !args.quiet {
        notice(&format!("copied {} to {}", counted(done.files, done.bytes), shown.display()));
    }
    Ok(())
}

fn say_skipped(done: &Unpacked) {
    for line in &done.skipped {
        notice(&format!("postern: left out: {}", crate::text::clean(line)));
    }
    let more = done.skipped_total - done.skipped.len() as u64;
    if more > 0 {
        notice(&format!("postern: left out: {more} more"));
    }
}

async fn stream_out(owner: &Owner, args: &Args, target: &Target, from: &str) -> Result<(), Failure> {
    if crate::process::terminal::stdout_is_terminal() {
        return Err(Failure::usage("a tar stream is nothing for a terminal")
            .hint("redirect it: `postern cp … - > file.tar` or `| tar x`"));
    }
    let source = RemotePath::parse(from);
    let doing = format!("copy {target}:{} to standard output", source.path);
    let session = Session::open(owner, &target.pod, Intent::Change).await?;
    let subject = Subject { pod: session.name(), doing: &doing };
    let mut incoming = Incoming::begin(&session, subject, args, target, &source.path).await?;
    let out = Writer::stdout(Screen::Raw);
    while let Some(piece) = incoming.next().await? {
        if !out.write(piece).await {
            break;
        }
    }
    out.finish().await.map_err(Failure::stdout)
}
