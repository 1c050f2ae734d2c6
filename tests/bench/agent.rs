//! A standalone agent beside crun and runc, and its tunnel beside bare rustls.

use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use postern_api::owner::{
    AttestRequest, ContainerSpec, CopyInBegin, CopyInRequest, CopyOutRequest, CreateRequest, ExecStart,
    InspectPodRequest, InspectRequest, ProcessInput, ProcessOutput, RemoveRequest, StartRequest, StringList,
    copy_in_request, copy_out_response, process_input, process_output,
};
use postern_evidence::{Evidence, Tee};
use postern_model::Role;
use postern_tests::{agent::Agent, archive::ImageRecipe, owner::Door};
use postern_tunnel::ClientIdentity;
use tokio::runtime::Runtime;

use crate::{
    figures::{Budget, Report, Samples, millis},
    runtimes::{self, Runtime as Reference},
    size, tls,
};

const ROUNDS: usize = 40;
const STREAM: usize = 512 << 20;
/// What `postern cp` puts in a message.
const PIECE: usize = 256 << 10;
const MIB: f64 = 1_048_576.0;

/// Exec, create and start, memory, descriptors.
pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    report.section("containers, beside crun and runc");
    runtimes::leave_mounts()?;
    let runtime = runtime()?;
    let (agent, door) = ready(&runtime)?;
    runtime.block_on(launch(&door, "web"))?;
    let inspect = InspectRequest { container: "web".into() };
    let specification = runtime.block_on(door.containers().inspect(inspect))?.into_inner().oci_config;
    let mut crun = Reference::new("crun", &specification)?;
    let mut runc = Reference::new("runc", &specification)?;
    exec(report, &runtime, &door, &mut crun, &mut runc)?;
    create_and_start(report, &runtime, &door, &mut crun)?;
    growth(report, &runtime, &door, &agent)
}

fn runtime() -> anyhow::Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn ready(runtime: &Runtime) -> anyhow::Result<(Agent, Door)> {
    let agent = Agent::ready()?;
    let door = runtime.block_on(async {
        let door = agent.owner.connect(agent.address).await?;
        door.pod().handover(postern_api::owner::HandoverRequest {}).await?;
        let folder = tempfile::tempdir()?;
        let archive = folder.path().join("image.tar");
        ImageRecipe::busybox("busybox:latest").write_oci_archive(&archive)?;
        door.push(std::fs::read(archive)?, "busybox:latest").await?;
        anyhow::Ok(door)
    })?;
    Ok((agent, door))
}

async fn create(door: &Door, name: &str) -> anyhow::Result<()> {
    let spec = ContainerSpec {
        name: name.into(),
        image: "busybox:latest".into(),
        entrypoint: Some(StringList { values: vec!["sleep".into(), "100000".into()] }),
        ..Default::default()
    };
    door.containers().create(CreateRequest { spec: Some(spec) }).await?;
    Ok(())
}

async fn start(door: &Door, name: &str) -> anyhow::Result<()> {
    door.containers().start(StartRequest { container: name.into() }).await?;
    Ok(())
}

async fn launch(door: &Door, name: &str) -> anyhow::Result<()> {
    create(door, name).await?;
    start(door, name).await
}

async fn remove(door: &Door, name: &str) -> anyhow::Result<()> {
    door.containers().remove(RemoveRequest { container: name.into(), force: true }).await?;
    Ok(())
}

fn exec(
    report: &mut Report,
    runtime: &Runtime,
    door: &Door,
    crun: &mut Reference,
    runc: &mut Reference,
) -> anyhow::Result<()> {
    let (crun_id, runc_id) = (crun.create()?, runc.create()?);
    crun.start(&crun_id)?;
    runc.start(&runc_id)?;
    let (mut ours, mut by_crun, mut by_runc) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        ours.time(|| runtime.block_on(door.exec("web", &["true"])))?;
        by_crun.time(|| crun.exec(&crun_id))?;
        by_runc.time(|| runc.exec(&runc_id))?;
    }
    crun.delete(&crun_id)?;
    runc.delete(&runc_id)?;
    report.samples("exec of true, through the tunnel", "ms", &ours, Budget::None);
    report.samples("crun exec", "ms", &by_crun, Budget::None);
    report.samples("runc exec", "ms", &by_runc, Budget::None);
    report.value("exec / crun exec", "x", ours.median() / by_crun.median(), Budget::AtMost(1.0));
    Ok(())
}

fn create_and_start(
    report: &mut Report,
    runtime: &Runtime,
    door: &Door,
    crun: &mut Reference,
) -> anyhow::Result<()> {
    let (mut ours, mut by_crun) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS / 2 {
        ours.time(|| runtime.block_on(launch(door, "fresh")))?;
        runtime.block_on(remove(door, "fresh"))?;
        let id = by_crun.time(|| {
            let id = crun.create()?;
            crun.start(&id)?;
            Ok(id)
        })?;
        crun.delete(&id)?;
    }
    report.samples("create + start, through the tunnel", "ms", &ours, Budget::None);
    report.samples("crun create + start, same specification, overlay", "ms", &by_crun, Budget::None);
    report.value("create + start / crun", "x", ours.median() / by_crun.median(), Budget::AtMost(1.0));
    Ok(())
}

fn growth(report: &mut Report, runtime: &Runtime, door: &Door, agent: &Agent) -> anyhow::Result<()> {
    for at in 0..9 {
        runtime.block_on(launch(door, &format!("many-{at}")))?;
    }
    size::settle();
    report.value(
        "agent, resident, ten containers",
        "MiB",
        size::resident_mib(agent.pid())?,
        Budget::AtMost(9.0),
    );
    let exec = |count: usize| -> anyhow::Result<()> {
        for _ in 0..count {
            runtime.block_on(door.exec("web", &["true"]))?;
        }
        size::settle();
        Ok(())
    };
    exec(100)?;
    let (descriptors, resident) = (size::descriptors(agent.pid())?, size::resident_mib(agent.pid())?);
    exec(1000)?;
    let grown = size::descriptors(agent.pid())? as f64 - descriptors as f64;
    report.value("descriptors grown over 1,000 execs", "", grown, Budget::AtMost(0.0));
    let grown = size::resident_mib(agent.pid())? - resident;
    report.value("resident grown over 1,000 execs", "MiB", grown, Budget::AtMost(0.5));
    Ok(())
}

/// Throughput, connection, small calls.
pub(crate) fn tunnel(report: &mut Report) -> anyhow::Result<()> {
    report.section("the tunnel, beside bare rustls on loopback");
    let runtime = runtime()?;
    let (agent, door) = ready(&runtime)?;
    runtime.block_on(launch(&door, "web"))?;
    throughput(report, &runtime, &door)?;
    connect(report, &runtime, &agent)?;
    let mut calls = Samples::default();
    runtime.block_on(async {
        let mut pod = door.pod();
        for _ in 0..500 {
            let begun = Instant::now();
            pod.inspect(InspectPodRequest {}).await?;
            calls.push(millis(begun.elapsed()) * 1000.0);
        }
        anyhow::Ok(())
    })?;
    report.samples("small call on an open tunnel", "us", &calls, Budget::AtMost(150.0));
    Ok(())
}

fn throughput(report: &mut Report, runtime: &Runtime, door: &Door) -> anyhow::Result<()> {
    let bare = tls::Bare::new()?;
    let mut bare_copy = Samples::default();
    let [mut cat, mut copy_in, mut copy_out] = [Samples::default(), Samples::default(), Samples::default()];
    let count = STREAM >> 20;
    let produce = format!("dd if=/dev/zero of=/tmp/big bs=1M count={count} 2>/dev/null");
    runtime.block_on(door.exec("web", &["sh", "-c", &produce]))?;
    for _ in 0..5 {
        bare_copy.push(runtime.block_on(bare.copy(STREAM))?);
        cat.push(runtime.block_on(exec_cat(door))?);
        copy_out.push(runtime.block_on(cp_out(door))?);
        // A new file each time: to give back the memory of the last one is no part of copying.
        runtime.block_on(door.exec("web", &["rm", "-f", "/tmp/big-in"]))?;
        copy_in.push(runtime.block_on(cp_in(door))?);
    }
    report.samples("bare rustls copy", "MiB/s", &bare_copy, Budget::None);
    for (name, samples) in [("exec cat", &cat), ("cp out", &copy_out), ("cp in", &copy_in)] {
        report.samples(name, "MiB/s", samples, Budget::AtLeast(300.0));
        report.value(
            &format!("{name} / bare copy"),
            "x",
            samples.median() / bare_copy.median(),
            Budget::AtLeast(0.6),
        );
    }
    Ok(())
}

async fn exec_cat(door: &Door) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let start = ExecStart {
        container: "web".into(),
        args: vec!["cat".into(), "/tmp/big".into()],
        ..Default::default()
    };
    let input = ProcessInput { kind: Some(process_input::Kind::Exec(start)) };
    let mut output = door.bulk().exec(tokio_stream::iter([input])).await?.into_inner();
    let mut received = 0;
    while let Some(ProcessOutput { kind }) = output.message().await? {
        if let Some(process_output::Kind::Stdout(bytes)) = kind {
            received += bytes.len();
        }
    }
    rate(received, begun)
}

async fn cp_out(door: &Door) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let request = CopyOutRequest { container: "web".into(), path: "/tmp/big".into(), follow_link: false };
    let mut output = door.bulk().copy_out(request).await?.into_inner();
    let mut received = 0;
    while let Some(message) = output.message().await? {
        if let Some(copy_out_response::Kind::Data(bytes)) = message.kind {
            received += bytes.len();
        }
    }
    rate(received.min(STREAM), begun)
}

async fn cp_in(door: &Door) -> anyhow::Result<f64> {
    let mut header = tar::Header::new_ustar();
    header.set_path("big-in")?;
    header.set_mode(0o644);
    header.set_size(STREAM as u64);
    header.set_cksum();
    let begin = CopyInBegin { container: "web".into(), directory: "/tmp".into(), preserve_owner: false };
    let data = |bytes: Bytes| CopyInRequest { kind: Some(copy_in_request::Kind::Data(bytes)) };
    let chunk = Bytes::from(vec![7; PIECE]);
    let messages = [
        CopyInRequest { kind: Some(copy_in_request::Kind::Begin(begin)) },
        data(Bytes::copy_from_slice(header.as_bytes())),
    ];
    let body = std::iter::repeat_n(chunk, STREAM / PIECE).map(data);
    let end = std::iter::once(data(Bytes::from(vec![0; 1024])));
    let begun = Instant::now();
    let response =
        door.bulk().copy_in(tokio_stream::iter(messages.into_iter().chain(body).chain(end))).await?;
    rate(usize::try_from(response.into_inner().bytes)?, begun)
}

fn rate(bytes: usize, begun: Instant) -> anyhow::Result<f64> {
    anyhow::ensure!(bytes == STREAM, "{bytes} bytes instead of {STREAM}");
    Ok(bytes as f64 / MIB / begun.elapsed().as_secs_f64())
}

/// From TCP connect to the first answer, all checks included; the time the platform takes for evidence set apart. The
/// owner has its identity at hand and has met this guest before, so that the chain and the report in the guest's
/// certificate are known byte by byte; the report of the session is new each time.
fn connect(report: &mut Report, runtime: &Runtime, agent: &Agent) -> anyhow::Result<()> {
    let bare = tls::Bare::new()?;
    let identity = agent.owner.identity(Role::Admin)?;
    let mut stages = ConnectStages::default();
    for _ in 0..ROUNDS {
        runtime.block_on(stages.round(agent, &identity, &bare))?;
    }
    stages.print(report);
    Ok(())
}

/// What a connection's time went into.
#[derive(Debug, Default)]
struct ConnectStages {
    total: Samples,
    evidence: Samples,
    verification: Samples,
    first_call: Samples,
    bare: Samples,
}

impl ConnectStages {
    async fn round(
        &mut self,
        agent: &Agent,
        identity: &ClientIdentity,
        bare: &tls::Bare,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        let door = agent.owner.connect_as(identity, agent.address).await?;
        let connected = Instant::now();
        door.pod().inspect(InspectPodRequest {}).await?;
        self.total.push(millis(begun.elapsed()));
        self.first_call.push(millis(connected.elapsed()));
        // What one report costs this platform, through the same open tunnel, and what it costs us to verify.
        let begun = Instant::now();
        let nonce = [7; 32];
        let answer = door.pod().attest(AttestRequest { nonce: nonce.to_vec() }).await.context("attest")?;
        let attest = millis(begun.elapsed());
        let begun = Instant::now();
        door.pod().inspect(InspectPodRequest {}).await?;
        self.evidence.push((attest - millis(begun.elapsed())).max(0.0));
        let answer = answer.into_inner().evidence.context("no evidence")?;
        let evidence = Evidence { tee: Tee::Snp, report: answer.report, certificates: answer.certificates };
        let expectation = agent.owner.expectation();
        let begun = Instant::now();
        door.attested.verify_again(&evidence, &nonce, &expectation)?;
        self.verification.push(millis(begun.elapsed()));
        self.bare.push(bare.handshake().await?);
        Ok(())
    }

    fn print(&self, report: &mut Report) {
        let [total, evidence, verification, first_call, bare] =
            [&self.total, &self.evidence, &self.verification, &self.first_call, &self.bare]
                .map(Samples::median);
        let rest = total - evidence - verification - first_call;
        report.samples("connect to first answer, all checks", "ms", &self.total, Budget::None);
        report.samples("- the platform's evidence", "ms", &self.evidence, Budget::None);
        report.samples("- verifying it (one P-384 signature)", "ms", &self.verification, Budget::None);
        report.samples("- HTTP/2 and the first call", "ms", &self.first_call, Budget::None);
        report.value("- the rest: TCP, TLS, exchange of evidence", "ms", rest, Budget::None);
        report.samples("bare mutual TLS 1.3 to first byte", "ms", &self.bare, Budget::None);
        let ratio = (total - evidence) / bare;
        report.value("connect without evidence / bare handshake", "x", ratio, Budget::AtMost(2.0));
    }
}
