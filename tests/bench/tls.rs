//! The references for the tunnel: bare rustls over loopback, same provider, same protocol version, nothing on top.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, server::TlsStream};

use crate::figures::millis;

/// Mutual TLS 1.3 with one P-256 certificate a side and no tickets.
#[derive(Debug)]
pub(crate) struct Bare {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Bare {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let make = || -> anyhow::Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
            let key = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
            Ok((key.cert.der().clone(), PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into())))
        };
        let (server_certificate, server_key) = make()?;
        let (client_certificate, client_key) = make()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let store = |certificate: &CertificateDer<'static>| -> anyhow::Result<Arc<RootCertStore>> {
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone())?;
            Ok(Arc::new(roots))
        };
        let verifier =
            WebPkiClientVerifier::builder_with_provider(store(&client_certificate)?, provider.clone())
                .build()?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![server_certificate.clone()], server_key)?;
        server.send_tls13_tickets = 0;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(store(&server_certificate)?)
            .with_client_auth_cert(vec![client_certificate], client_key)?;
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }

    /// Milliseconds from TCP connect to the first byte back.
    pub(crate) async fn handshake(&self) -> anyhow::Result<f64> {
        let (address, server) = self.serve(async |mut stream| {
            let mut byte = [0; 1];
            stream.read_exact(&mut byte).await?;
            stream.write_all(&byte).await?;
            stream.flush().await?;
            // Until the client is done with it.
            let _ = stream.read(&mut byte).await;
            Ok(())
        })?;
        let begun = Instant::now();
        let mut stream = self.connect(address).await?;
        stream.write_all(&[1]).await?;
        stream.flush().await?;
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).await?;
        let elapsed = millis(begun.elapsed());
        drop(stream);
        finish(server)?;
        Ok(elapsed)
    }

    /// MiB per second of copying `bytes` through one connection.
    pub(crate) async fn copy(&self, bytes: usize) -> anyhow::Result<f64> {
        let (address, server) = self.serve(async move |mut stream| {
            let chunk = vec![7; 256 << 10];
            let mut left = bytes;
            while left > 0 {
                let now = left.min(chunk.len());
                stream.write_all(&chunk[..now]).await?;
                left -= now;
            }
            stream.shutdown().await?;
            Ok(())
        })?;
        let mut stream = self.connect(address).await?;
        let begun = Instant::now();
        let mut buffer = vec![0; 256 << 10];
        let mut received = 0;
        while let count @ 1.. = stream.read(&mut buffer).await? {
            received += count;
        }
        let seconds = begun.elapsed().as_secs_f64();
        finish(server)?;
        anyhow::ensure!(received == bytes, "received {received} of {bytes} bytes");
        Ok(received as f64 / f64::from(1 << 20) / seconds)
    }

    async fn connect(
        &self,
        address: SocketAddr,
    ) -> anyhow::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(TlsConnector::from(self.client.clone())
            .connect(ServerName::try_from("localhost")?, stream)
            .await?)
    }

    /// Serves one connection on a thread of its own, as the agent is a process of its own.
    fn serve<F>(&self, talk: F) -> anyhow::Result<(SocketAddr, Server)>
    where
        F: AsyncFnOnce(TlsStream<TcpStream>) -> anyhow::Result<()> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let acceptor = TlsAcceptor::from(self.server.clone());
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                listener.set_nonblocking(true)?;
                let (stream, _) = TcpListener::from_std(listener)?.accept().await?;
                stream.set_nodelay(true)?;
                talk(acceptor.accept(stream).await?).await
            })
        });
        Ok((address, server))
    }
}

type Server = std::thread::JoinHandle<anyhow::Result<()>>;

fn finish(server: Server) -> anyhow::Result<()> {
    server.join().map_err(|_| anyhow::anyhow!("the reference server panicked"))?
}
