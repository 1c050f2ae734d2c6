//! `Containers.PortForward`: bytes to and from a TCP port on the pod's loopback, each direction closed by itself.

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use postern_api::owner::{PortForwardRequest, PortForwardResponse, port_forward_request};
use postern_model::OperationKind;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
};
use tonic::{Status, Streaming};

use super::{process::AbortOnDrop, service::Answers, session::Session, status};

const CHUNK: usize = 64 << 10;

pub(super) async fn port_forward(
    session: &Session,
    mut input: Streaming<PortForwardRequest>,
) -> Result<Answers<PortForwardResponse>, Status> {
    let first = input.message().await?.and_then(|message| message.kind);
    let Some(port_forward_request::Kind::Port(port)) = first else {
        return Err(Status::invalid_argument("the first message of a port-forward is not port"));
    };
    let port = u16::try_from(port).ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| Status::invalid_argument("port is not 1 to 65535"))?;
    let permit = session.permit(OperationKind::PortForward)?;
    let stream = session.pod().port_forward(permit, port).await.map_err(status::pod)?;
    let (reader, writer) = stream.into_split();
    let upstream = AbortOnDrop(tokio::spawn(write_all(input, writer)));
    let state = (reader, BytesMut::new(), upstream);
    Ok(Box::pin(stream::unfold(state, |(mut reader, mut buffer, upstream)| async move {
        let data = read(&mut reader, &mut buffer).await?;
        Some((data.map(|data| PortForwardResponse { data }), (reader, buffer, upstream)))
    })))
}

async fn read(reader: &mut OwnedReadHalf, buffer: &mut BytesMut) -> Option<Result<Bytes, Status>> {
    buffer.reserve(CHUNK);
    match reader.read_buf(buffer).await {
        Ok(0) => None,
        Ok(_) => Some(Ok(buffer.split().freeze())),
        Err(error) => Some(Err(Status::unavailable(format!("the pod's port broke the connection: {error}")))),
    }
}

async fn write_all(mut input: Streaming<PortForwardRequest>, mut writer: OwnedWriteHalf) {
    // A broken stream and a broken socket both end this direction; the other one says why.
    while let Ok(Some(message)) = input.message().await {
        match message.kind {
            Some(port_forward_request::Kind::Data(data)) => {
                if writer.write_all(&data).await.is_err() {
                    return;
                }
            }
            Some(port_forward_request::Kind::Close(true)) => break,
            Some(port_forward_request::Kind::Close(false) | port_forward_request::Kind::Port(_)) | None => {}
        }
    }
    let _ = writer.shutdown().await;
}
