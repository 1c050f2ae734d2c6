//! One verified tunnel to one pod, and the calls through it.

use std::{future::Future, sync::Arc, time::Duration};

use postern_api::{
    bulk,
    owner::{
        HandoverRequest, containers_client::ContainersClient, images_client::ImagesClient,
        pod_client::PodClient,
    },
};
use postern_evidence::RootKind;
use postern_model::{PodName, Role};
use postern_tunnel::Attested;
use tonic::{Response, Status, codegen::http::Uri};

use super::{Subject, channel::Channel, status, verify::Plan};
use crate::{
    config::Config,
    exit::Exit,
    failure::{Failure, OrFail},
    home::Home,
    host::Stage,
    output::notice,
    record::PodRecord,
};

/// Largest message that is read; the guest sends nothing near it.
const MAX_MESSAGE: usize = 8 << 20;
/// How long a call may take that waits for nothing but the guest itself.
const CALL: Duration = Duration::from_secs(30);

/// Who asks, with what defaults.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    pub(crate) home: Home,
    pub(crate) config: Config,
    pub(crate) role: Role,
}

/// Whether a verb changes the pod, and so takes it over first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    Read,
    Change,
}

/// A verified tunnel. Ends with the value.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    record: PodRecord,
    channel: Channel,
    attested: Arc<Attested>,
    origin: Uri,
}

impl Session {
    /// Reaches, verifies and, for a change, takes over a pod that the owner knows.
    pub(crate) async fn open(owner: &Owner, pod: &PodName, intent: Intent) -> Result<Self, Failure> {
        let record = PodRecord::load(&owner.home, pod)?;
        let plan = Plan::new(owner, &record)?;
        let verified = plan.carry_out().await.map_err(|error| error.into_failure(&record))?;
        let mut session = Self::begin(record, verified.stream, verified.attested).await?;
        session.pin(owner)?;
        if intent == Intent::Change && !session.record.owned && session.hand_over(owner).await? {
            notice(&format!("pod {pod} is yours now: the host can no longer create or touch its containers"));
        }
        Ok(session)
    }

    /// Speaks HTTP/2 on a verified stream.
    pub(crate) async fn begin<IO>(record: PodRecord, stream: IO, attested: Attested) -> Result<Self, Failure>
    where
        IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let channel = Channel::open(stream).await.map_err(|error| {
            Failure::new(Exit::Unreachable, format!("cannot speak HTTP/2 with pod {}", record.name))
                .caused_by(error)
        })?;
        // A pod's name is a host name label, so this is a valid origin. It decides nothing.
        let origin = Uri::builder()
            .scheme("https")
            .authority(record.name.as_str())
            .path_and_query("/")
            .build()
            .or_fail(|| "cannot name the pod".into())?;
        Ok(Self { record, channel, attested: Arc::new(attested), origin })
    }

    /// Remembers the instance at the first contact.
    pub(crate) fn pin(&mut self, owner: &Owner) -> Result<(), Failure> {
        if self.record.instance.is_some() {
            return Ok(());
        }
        self.record.instance = Some(self.attested.instance().to_string());
        self.record.save(&owner.home)
    }

    /// The one-way step after which the host can create nothing. True when it happened now.
    pub(crate) async fn hand_over(&mut self, owner: &Owner) -> Result<bool, Failure> {
        let doing = "take the pod over from the host";
        let mut pod = self.pod();
        let response = self.call(doing, async move { pod.handover(HandoverRequest {}).await }).await?;
        self.record.owned = true;
        self.record.save(&owner.home)?;
        Ok(response.changed)
    }

    /// Remembers how the pod came up.
    pub(crate) fn keep_timeline(&mut self, owner: &Owner, timeline: Vec<Stage>) -> Result<(), Failure> {
        self.record.timeline = timeline;
        self.record.save(&owner.home)
    }

    pub(crate) fn name(&self) -> &str {
        self.record.name.as_str()
    }

    pub(crate) fn record(&self) -> &PodRecord {
        &self.record
    }

    pub(crate) fn is_simulated(&self) -> bool {
        self.attested.root_kind() == RootKind::Simulated
    }

    pub(crate) fn pod(&self) -> PodClient<Channel> {
        PodClient::with_origin(self.channel.clone(), self.origin.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::with_origin(self.channel.clone(), self.origin.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    /// Calls that carry bytes in bulk.
    pub(crate) fn bulk(&self) -> bulk::Client<Channel> {
        bulk::Client::new(self.channel.clone(), self.origin.clone(), MAX_MESSAGE)
    }

    pub(crate) fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::with_origin(self.channel.clone(), self.origin.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    /// A call that the guest answers at once.
    pub(crate) async fn call<T>(
        &self,
        doing: &str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.call_within(CALL, doing, answer).await
    }

    /// A call that the guest may take `limit` to answer.
    pub(crate) async fn call_within<T>(
        &self,
        limit: Duration,
        doing: &str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        let subject = Subject { pod: self.name(), doing };
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer.map(Response::into_inner).map_err(|status| self.failure(subject, &status)),
            Err(_) => Err(self.no_answer(subject, limit)),
        }
    }

    /// A call that lasts as long as what it waits for; the tunnel's own signs of life bound it.
    pub(crate) async fn open_stream<T>(
        &self,
        subject: Subject<'_>,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        answer.await.map(Response::into_inner).map_err(|status| self.failure(subject, &status))
    }

    fn no_answer(&self, subject: Subject<'_>, limit: Duration) -> Failure {
        Failure::new(Exit::Unreachable, format!("cannot {}", subject.doing))
            .caused_by(format!("pod {} gave no answer within {} s", self.name(), limit.as_secs()))
            .hint(format!("`postern pod verify {}` tells whether the pod still answers", self.name()))
    }

    /// The failure that the tunnel's end is, once it has ended.
    pub(crate) fn cut(&self, doing: &str) -> Option<Failure> {
        let reason = self.channel.end()?;
        let subject = Subject { pod: self.name(), doing };
        Some(status::cut_failure(subject, reason))
    }

    /// What a status means, knowing whether the tunnel still stands.
    pub(crate) fn failure(&self, subject: Subject<'_>, status: &Status) -> Failure {
        status::failure(subject, status, self.channel.end())
    }
}
