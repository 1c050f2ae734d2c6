//! `postern logs`: what a container has written, standard output and error apart.

use bytes::{Bytes, BytesMut};
use postern_api::owner::{LogsRequest, LogsResponse, Stream};
use serde_json::json;

use crate::{
    door::{Intent, Owner, Session, Subject},
    exit::Exit,
    failure::Failure,
    human,
    launch::parse,
    output::{self, Format, FormatArg},
    process::output::{Screen, Writer},
    target::Target,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A log is a bounded ring in the pod's memory; what was dropped is said. On a terminal, control sequences are shown, not obeyed.\n\nExamples:\n  postern logs demo/web\n  postern logs -f --tail 10 demo/web\n  postern logs --since 10m -t demo/web > web.log 2> web.err"
)]
pub(crate) struct Args {
    /// The container, as POD/CONTAINER
    #[arg(value_name = "POD/CONTAINER", value_parser = parse::<Target>)]
    container: Target,
    /// Go on until the container ends
    #[arg(long, short)]
    follow: bool,
    /// Only the last N lines
    #[arg(long, short = 'n', value_name = "N")]
    tail: Option<u64>,
    /// Only after this moment: 10m, 2026-01-31T12:00:00Z, or seconds since 1970
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<u64>,
    /// Put the time before each line
    #[arg(long, short)]
    timestamps: bool,
    #[command(flatten)]
    output: FormatArg,
}

fn since(text: &str) -> Result<u64, String> {
    human::parse_since(text, human::now_millis())
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let Target { pod, container } = &args.container;
    let session = Session::open(owner, pod, Intent::Read).await?;
    let doing = format!("read the log of container {container}");
    let subject = Subject { pod: session.name(), doing: &doing };
    let request = LogsRequest {
        container: container.to_string(),
        follow: args.follow,
        tail: args.tail,
        since_unix_millis: args.since.unwrap_or_default(),
    };
    let mut log = session.open_stream(subject, session.containers().logs(request)).await?;
    let mut printer = Printer::new(args.output.format, args.timestamps);
    let outcome = loop {
        match log.message().await {
            Ok(Some(piece)) => {
                if !printer.piece(piece).await? {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(status) => break Err(session.failure(subject, &status)),
        }
    };
    printer.finish().await?;
    outcome.map(|()| Exit::Done)
}

/// Where the pieces of a log go.
struct Printer {
    format: Format,
    timestamps: bool,
    out: Side,
    err: Side,
}

/// One of the two streams.
struct Side {
    writer: Writer,
    /// The next byte begins a line.
    at_line_start: bool,
}

impl Side {
    fn new(writer: Writer) -> Self {
        Self { writer, at_line_start: true }
    }
}

impl Printer {
    fn new(format: Format, timestamps: bool) -> Self {
        Self {
            format,
            timestamps,
            out: Side::new(Writer::stdout(Screen::Sanitised)),
            err: Side::new(Writer::stderr(Screen::Sanitised)),
        }
    }

    /// False when nobody reads any more.
    async fn piece(&mut self, piece: LogsResponse) -> Result<bool, Failure> {
        if piece.dropped_bytes > 0 && self.format == Format::Text {
            output::notice(&format!(
                "postern: {} of the log were dropped here",
                human::size(piece.dropped_bytes)
            ));
        }
        let is_stderr = piece.stream() == Stream::Stderr;
        if self.format == Format::Json {
            output::json_line(&json!({
                "time": human::rfc3339(piece.unix_millis),
                "stream": if is_stderr { "stderr" } else { "stdout" },
                "dropped_bytes": piece.dropped_bytes,
                "data": String::from_utf8_lossy(&piece.data),
            }))?;
            return Ok(true);
        }
        let side = if is_stderr { &mut self.err } else { &mut self.out };
        let data = match self.timestamps {
            true => stamped(&piece, &mut side.at_line_start),
            false => piece.data,
        };
        Ok(data.is_empty() || side.writer.write(data).await)
    }

    async fn finish(self) -> Result<(), Failure> {
        let out = self.out.writer.finish().await;
        let err = self.err.writer.finish().await;
        out.and(err).map_err(Failure::stdout)
    }
}

fn stamped(piece: &LogsResponse, at_line_start: &mut bool) -> Bytes {
    let stamp = human::rfc3339(piece.unix_millis);
    let mut out = BytesMut::with_capacity(piece.data.len() + stamp.len() + 1);
    for line in piece.data.split_inclusive(|&byte| byte == b'\n') {
        if *at_line_start {
            out.extend_from_slice(stamp.as_bytes());
            out.extend_from_slice(b" ");
        }
        out.extend_from_slice(line);
        *at_line_start = line.ends_with(b"\n");
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_stands_before_each_line_and_nowhere_else() {
        let piece =
            |data: &'static [u8]| LogsResponse { data: Bytes::from_static(data), ..Default::default() };
        let mut start = true;
        let first = stamped(&piece(b"a\nb"), &mut start);
        let second = stamped(&piece(b"c\n"), &mut start);
        let zero = "1970-01-01T00:00:00.000Z";
        assert_eq!(first, format!("{zero} a\n{zero} b"));
        assert_eq!(second, "c\n");
        assert!(start);
    }
}
