//! A registry in the test's own process: honest, or whatever a test makes of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use postern_model::ImageReference;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    task::JoinHandle,
};

use super::support::*;
use crate::manifest;

#[derive(Debug, Clone, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    pub(super) cut: Option<usize>,
}

impl Reply {
    pub(super) fn ok(body: Vec<u8>) -> Self {
        Self { status: 200, body, ..Self::default() }
    }

    pub(super) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

pub(super) type Handler = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// Answers every request with what a closure makes of it, one request a connection.
pub(super) struct Server {
    pub(super) address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) async fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(Arc::new(handler), None).await
    }

    pub(super) async fn listen(handler: Handler, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (handler, log, tls) = (Arc::clone(&handler), Arc::clone(&log), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &handler, &log).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &handler, &log).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self { address, asked, task }
    }

    pub(super) fn reference(&self) -> ImageReference {
        format!("{}/test:1", self.address).parse().unwrap()
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    handler: &Handler,
    log: &Mutex<Vec<Asked>>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let path = lines.first()?.split(' ').nth(1)?.to_owned();
    let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let asked = Asked { path, headers };
    let reply = handler(&asked);
    log.lock().unwrap().push(asked);
    let mut head = format!(
        "HTTP/1.1 {} x\r\nconnection: close\r\ncontent-length: {}\r\n",
        reply.status,
        reply.body.len()
    );
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.ok()?;
    stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())]).await.ok()?;
    stream.shutdown().await.ok()
}

/// What an honest registry answers.
pub(super) fn honest(image: &TestImage, asked: &Asked) -> Reply {
    let index = json!({ "schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": [
        { "mediaType": manifest::OCI_MANIFEST, "digest": digest(b"other"), "size": 1,
          "platform": { "os": "linux", "architecture": "arm64" } },
        { "mediaType": manifest::OCI_MANIFEST, "digest": digest(&image.manifest_bytes()), "size": image.manifest_bytes().len(),
          "platform": { "os": "linux", "architecture": "amd64" } },
    ]});
    if asked.path == "/v2/test/manifests/1" {
        return Reply::ok(index.to_string().into_bytes());
    }
    let found = image.blobs().into_iter().find(|blob| asked.path.ends_with(&digest(blob)));
    let Some(blob) = found else { return Reply::status(404) };
    let range = asked.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
    match range.and_then(|from| from.parse::<usize>().ok()) {
        Some(from) if from < blob.len() => {
            Reply { status: 206, body: blob[from..].to_vec(), ..Reply::default() }
        }
        _ => Reply::ok(blob),
    }
}

/// Whether the image's layer `index` was asked for.
pub(super) fn is_layer(image: &TestImage, index: usize, asked: &Asked) -> bool {
    asked.path.ends_with(&digest(&image.layers[index].0))
}
