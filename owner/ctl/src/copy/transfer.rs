//! One blocking producer or consumer on this machine, one stream through the tunnel, and both ends of both told apart when
//! something fails.

use std::future::Future;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use super::pipe::{self, PipeWriter};

/// Messages between the producer's queue and the tunnel; the queue itself is deep enough.
const QUEUE: usize = 1;

/// Where an upload failed.
#[derive(Debug)]
pub(crate) enum UploadError<E> {
    /// Reading on this machine.
    Local(E),
    /// The pod, or the way to it.
    Pod(Status),
}

/// Sends `first` and then everything `produce` writes; ends the stream only when `produce` has succeeded, and breaks it off
/// otherwise, so that the pod never takes a part for the whole.
pub(crate) async fn upload<M, T, E, Open, Opening>(
    first: M,
    wrap: impl Fn(Bytes) -> M,
    produce: impl FnOnce(PipeWriter) -> Result<(), E> + Send + 'static,
    open: Open,
) -> Result<T, UploadError<E>>
where
    M: Send + 'static,
    E: Send + 'static,
    Open: FnOnce(ReceiverStream<M>) -> Opening,
    Opening: Future<Output = Result<Response<T>, Status>>,
{
    let (writer, mut pieces) = pipe::to_tunnel();
    let (told, produced) = oneshot::channel();
    // It may sit in a read for ever, of a pipe for example: nothing waits for it.
    std::thread::spawn(move || told.send(produce(writer)).is_ok());
    let (requests, receiver) = mpsc::channel(QUEUE);
    let forward = async move {
        let mut open = requests.send(first).await.is_ok();
        while open && let Some(piece) = pieces.recv().await {
            open = requests.send(wrap(piece)).await.is_ok();
        }
        match open {
            // The pod has hung up and says why in its answer.
            false => std::future::pending().await,
            true => match produced.await {
                Ok(Err(error)) => error,
                Ok(Ok(())) | Err(_) => {
                    drop(requests);
                    std::future::pending().await
                }
            },
        }
    };
    tokio::select! {
        answer = open(ReceiverStream::new(receiver)) => {
            answer.map(Response::into_inner).map_err(UploadError::Pod)
        }
        error = forward => Err(UploadError::Local(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio_stream::StreamExt;

    use super::*;

    async fn collect(stream: ReceiverStream<Vec<u8>>) -> Result<Response<Vec<u8>>, Status> {
        Ok(Response::new(stream.collect::<Vec<_>>().await.concat()))
    }

    #[tokio::test]
    async fn everything_arrives_after_the_first_message() {
        let produce = |mut out: PipeWriter| out.write_all(b"data").and_then(|()| out.flush());
        let got = upload(b"begin:".to_vec(), |piece| piece.to_vec(), produce, collect).await;
        assert!(matches!(got, Ok(data) if data == b"begin:data"));
    }

    #[tokio::test]
    async fn a_failing_producer_never_completes_the_stream() {
        let produce = |mut out: PipeWriter| {
            out.write_all(b"half").and_then(|()| out.flush())?;
            Err(std::io::Error::other("disk"))
        };
        let got = upload(Vec::new(), |piece| piece.to_vec(), produce, collect).await;
        assert!(matches!(got, Err(UploadError::Local(error)) if error.to_string() == "disk"));
    }

    #[tokio::test]
    async fn the_pods_answer_comes_first() {
        let produce = |mut out: PipeWriter| loop {
            out.write_all(&[0; 4096])?;
        };
        let refuse = |stream: ReceiverStream<Vec<u8>>| async move {
            drop(stream);
            Err::<Response<()>, _>(Status::resource_exhausted("full"))
        };
        let got: Result<(), UploadError<std::io::Error>> =
            upload(Vec::new(), |piece| piece.to_vec(), produce, refuse).await;
        assert!(matches!(got, Err(UploadError::Pod(status)) if status.message() == "full"));
    }
}
