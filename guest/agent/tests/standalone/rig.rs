//! A standalone agent, a simulated platform under it, an owner in front of it and a host behind it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper_util::rt::TokioIo;
use postern_api::{
    host::{CreateSandboxRequest, TtrpcResponse},
    owner::{containers_client::ContainersClient, images_client::ImagesClient, pod_client::PodClient},
    ttrpc::{HEADER_LENGTH, Header, request_frame},
};
use postern_evidence::{ReferenceValues, TcbVersion, TrustedRoot, TrustedRoots};
use postern_launch::{InitData, Mode, encode};
use postern_model::{HostData, Measurement, Role};
use postern_simtee::{Launch, Platform, SimServer};
use postern_tunnel::{
    client::{self, Expectation, ExpectedInstance},
    identity::{OwnerCa, Validity},
};
use prost::Message;
use tonic::transport::{Channel, Endpoint};

const MEASUREMENT: Measurement = Measurement::new([7; 48]);

/// A running agent. Dropping it ends it.
pub(crate) struct Agent {
    pub(crate) child: Child,
    pub(crate) owner: SocketAddr,
    pub(crate) host: PathBuf,
    ca: OwnerCa,
    platform: Platform,
    host_data: HostData,
    _tee: SimServer,
    _directory: tempfile::TempDir,
}

/// Clients of one owner's connection.
#[derive(Clone)]
pub(crate) struct Owner {
    pub(crate) pod: PodClient<Channel>,
    pub(crate) containers: ContainersClient<Channel>,
    pub(crate) images: ImagesClient<Channel>,
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn lifetime() -> Validity {
    Validity::starting(now(), Duration::from_secs(3600))
}

/// How the platform measures init data: as it is, or something else.
pub(crate) enum HostDataOf {
    InitData,
    SomethingElse,
}

pub(crate) fn try_start(host_data_of: HostDataOf) -> Result<Agent, String> {
    try_start_at("tcp://127.0.0.1:0", host_data_of)
}

pub(crate) fn try_start_at(owner_listen: &str, host_data_of: HostDataOf) -> Result<Agent, String> {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let ca = OwnerCa::create(lifetime()).unwrap();
    let init_data = encode(&InitData {
        pod: "demo".parse().unwrap(),
        owner_ca_der: ca.certificate_der().to_vec(),
        instance: [9; 32],
        mode: Mode::Direct,
    });
    std::fs::write(at("init-data"), init_data.device()).unwrap();
    let platform = Platform::ephemeral().unwrap();
    let host_data = match host_data_of {
        HostDataOf::InitData => init_data.digest(),
        HostDataOf::SomethingElse => HostData::new([1; 32]),
    };
    let guest = platform.launch(Launch::new(MEASUREMENT, host_data)).unwrap();
    let tee = postern_simtee::serve(UnixListener::bind(at("tee")).unwrap(), guest).unwrap();
    let unix = |path: PathBuf| format!("unix://{}", path.display());
    let mut child = Command::new(env!("CARGO_BIN_EXE_postern-agent"))
        .args(["--standalone", "--owner-listen", owner_listen])
        .args(["--host-listen", &unix(at("host")), "--tee-device", &unix(at("tee"))])
        .arg("--init-data")
        .arg(at("init-data"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line.is_empty() {
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        child.wait().unwrap();
        return Err(text);
    }
    let serving: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = |key: &str| serving[key].as_str().unwrap().to_owned();
    Ok(Agent {
        owner: address("owner").strip_prefix("tcp://").unwrap().parse().unwrap(),
        host: address("host").strip_prefix("unix://").unwrap().into(),
        child,
        ca,
        platform,
        host_data: init_data.digest(),
        _tee: tee,
        _directory: directory,
    })
}

/// An agent that the host has configured and the owner has taken over, and that owner.
pub(crate) async fn owned() -> (Agent, Owner) {
    let agent = try_start(HostDataOf::InitData).unwrap();
    agent.create_sandbox();
    let mut owner = agent.connect(Role::Admin).await;
    owner.pod.handover(postern_api::owner::HandoverRequest {}).await.unwrap();
    (agent, owner)
}

impl Agent {
    pub(crate) async fn connect(&self, role: Role) -> Owner {
        self.connect_for(role, lifetime()).await
    }

    /// With a certificate that is valid for so long.
    pub(crate) async fn connect_for(&self, role: Role, validity: Validity) -> Owner {
        let identity = self.ca.issue("tester", role, validity).unwrap();
        let root = TrustedRoot::simulated("test", self.platform.root_der()).unwrap();
        let expectation = Expectation {
            roots: TrustedRoots::none().with(root),
            reference_values: ReferenceValues {
                measurements: vec![MEASUREMENT],
                host_data: self.host_data,
                minimum_tcb: TcbVersion::default(),
            },
            instance: ExpectedInstance::FirstContact,
            now: now(),
        };
        let stream = tokio::net::TcpStream::connect(self.owner).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (stream, _) = client::connect(stream, &identity, &expectation).await.unwrap();
        let stream = Mutex::new(Some(TokioIo::new(stream)));
        let connector = tower::service_fn(move |_| {
            let stream = stream.lock().unwrap().take();
            async move { stream.ok_or_else(|| std::io::Error::other("the tunnel is gone")) }
        });
        let channel = Endpoint::from_static("http://pod")
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .connect_with_connector(connector)
            .await
            .unwrap();
        Owner {
            pod: PodClient::new(channel.clone()),
            containers: ContainersClient::new(channel.clone()),
            images: ImagesClient::new(channel),
        }
    }

    /// The host's part: the sandbox is configured.
    pub(crate) fn create_sandbox(&self) {
        let request = CreateSandboxRequest { hostname: "demo".into(), ..Default::default() };
        let answer = self.host_call("CreateSandbox", request.encode_to_vec());
        assert_eq!(answer.status.unwrap_or_default().code, 0);
    }

    pub(crate) fn host_call(&self, method: &str, payload: Vec<u8>) -> TtrpcResponse {
        let mut stream = UnixStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(&request_frame(1, "grpc.AgentService", method, payload, 0)).unwrap();
        let mut header = [0; HEADER_LENGTH];
        stream.read_exact(&mut header).unwrap();
        let mut body = vec![0; Header::decode(&header).length as usize];
        stream.read_exact(&mut body).unwrap();
        TtrpcResponse::decode(&body[..]).unwrap()
    }

    /// Ends the agent as an administrator would, and waits for it.
    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap();
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        self.child.wait().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.terminate();
        }
    }
}

/// Debian's static busybox as an OCI layout in a tar file.
pub(crate) fn busybox_image() -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut layer = tar::Builder::new(Vec::new());
    for directory in ["bin/", "etc/", "tmp/", "root/", "proc/", "sys/", "dev/"] {
        append(&mut layer, directory, tar::EntryType::Directory, &[]);
    }
    append(&mut layer, "bin/busybox", tar::EntryType::Regular, &busybox);
    for applet in [
        "sh", "cat", "echo", "true", "sleep", "yes", "head", "tail", "wc", "dd", "tty", "stty", "nc", "kill",
        "ls",
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        layer.append_link(&mut header, Path::new("bin").join(applet), "busybox").unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    let mut blob = |content: &[u8], media_type: &str| {
        let digest = hex::encode(ring::digest::digest(&ring::digest::SHA256, content));
        append(&mut archive, &format!("blobs/sha256/{digest}"), tar::EntryType::Regular, content);
        serde_json::json!({
            "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len()
        })
    };
    let layer = blob(&layer, "application/vnd.oci.image.layer.v1.tar");
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config = blob(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [layer],
    });
    let mut manifest = blob(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    manifest["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "busybox:latest" });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
    append(&mut archive, "index.json", tar::EntryType::Regular, index.to_string().as_bytes());
    append(&mut archive, "oci-layout", tar::EntryType::Regular, br#"{"imageLayoutVersion":"1.0.0"}"#);
    archive.into_inner().unwrap()
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content).unwrap();
}
