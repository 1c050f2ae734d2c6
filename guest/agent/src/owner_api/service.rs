//! The three services, method by method. Each is carried out in the file named after it; those that carry bytes in
//! bulk come to it by way of [`super::bulk`].

use std::pin::Pin;

use postern_api::owner::{
    ApplyRequest, ApplyResponse, AttestRequest, AttestResponse, AuditRecord, AuditRequest, CopyInRequest,
    CopyInResponse, CopyOutRequest, CopyOutResponse, CreateRequest, CreateResponse, Event, EventsRequest,
    HandoverRequest, HandoverResponse, InspectPodRequest, InspectPodResponse, InspectRequest,
    InspectResponse, KillRequest, KillResponse, ListImagesRequest, ListImagesResponse, ListRequest,
    ListResponse, LogsRequest, LogsResponse, PauseRequest, PauseResponse, PortForwardRequest,
    PortForwardResponse, ProcessInput, ProcessOutput, PullRequest, PullResponse, PushRequest, PushResponse,
    ReleaseRequest, ReleaseResponse, RemoveImageRequest, RemoveImageResponse, RemoveRequest, RemoveResponse,
    StartRequest, StartResponse, StatsRequest, StatsResponse, StopRequest, StopResponse, TopRequest,
    TopResponse, UnpauseRequest, UnpauseResponse, WaitRequest, WaitResponse, containers_server::Containers,
    images_server::Images, pod_server::Pod,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    apply, attest, audit, create, events, handover, images, inspect, inspect_pod, lifecycle, list, logs,
    port_forward, release, session::Session, stats, top, wait,
};

/// What a streaming method answers with.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

/// Calls in [`bulk`](super::bulk) never get here.
fn routed_before<T>(_: Request<T>) -> Status {
    Status::unimplemented("this call is served elsewhere")
}

#[tonic::async_trait]
impl Pod for Session {
    type AuditStream = Answers<AuditRecord>;
    type EventsStream = Answers<Event>;

    async fn inspect(&self, _: Request<InspectPodRequest>) -> Answer<InspectPodResponse> {
        inspect_pod::inspect_pod(self).await.map(Response::new)
    }

    async fn attest(&self, request: Request<AttestRequest>) -> Answer<AttestResponse> {
        attest::attest(self, request.into_inner()).await.map(Response::new)
    }

    async fn handover(&self, _: Request<HandoverRequest>) -> Answer<HandoverResponse> {
        handover::handover(self).await.map(Response::new)
    }

    async fn release(&self, _: Request<ReleaseRequest>) -> Answer<ReleaseResponse> {
        release::release(self).await.map(Response::new)
    }

    async fn apply(&self, request: Request<ApplyRequest>) -> Answer<ApplyResponse> {
        apply::apply(self, request.into_inner()).await.map(Response::new)
    }

    async fn audit(&self, request: Request<AuditRequest>) -> Answer<Self::AuditStream> {
        audit::audit(self, request.into_inner()).map(Response::new)
    }

    async fn events(&self, request: Request<EventsRequest>) -> Answer<Self::EventsStream> {
        events::events(self, request.into_inner()).map(Response::new)
    }
}

#[tonic::async_trait]
impl Containers for Session {
    type StatsStream = Answers<StatsResponse>;
    type LogsStream = Answers<LogsResponse>;
    type AttachStream = Answers<ProcessOutput>;
    type ExecStream = Answers<ProcessOutput>;
    type CopyOutStream = Answers<CopyOutResponse>;
    type PortForwardStream = Answers<PortForwardResponse>;

    async fn create(&self, request: Request<CreateRequest>) -> Answer<CreateResponse> {
        create::create(self, request.into_inner()).await.map(Response::new)
    }

    async fn start(&self, request: Request<StartRequest>) -> Answer<StartResponse> {
        lifecycle::start(self, request.into_inner()).await.map(Response::new)
    }

    async fn stop(&self, request: Request<StopRequest>) -> Answer<StopResponse> {
        lifecycle::stop(self, request.into_inner()).await.map(Response::new)
    }

    async fn kill(&self, request: Request<KillRequest>) -> Answer<KillResponse> {
        lifecycle::kill(self, request.into_inner()).await.map(Response::new)
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Answer<RemoveResponse> {
        lifecycle::remove(self, request.into_inner()).await.map(Response::new)
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Answer<PauseResponse> {
        lifecycle::pause(self, request.into_inner()).await.map(Response::new)
    }

    async fn unpause(&self, request: Request<UnpauseRequest>) -> Answer<UnpauseResponse> {
        lifecycle::unpause(self, request.into_inner()).await.map(Response::new)
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Answer<WaitResponse> {
        wait::wait(self, request.into_inner()).await.map(Response::new)
    }

    async fn list(&self, request: Request<ListRequest>) -> Answer<ListResponse> {
        list::list(self, request.into_inner()).map(Response::new)
    }

    async fn inspect(&self, request: Request<InspectRequest>) -> Answer<InspectResponse> {
        inspect::inspect(self, request.into_inner()).map(Response::new)
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Answer<Self::StatsStream> {
        stats::stats(self, request.into_inner()).await.map(Response::new)
    }

    async fn top(&self, request: Request<TopRequest>) -> Answer<TopResponse> {
        top::top(self, request.into_inner()).await.map(Response::new)
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Answer<Self::LogsStream> {
        logs::logs(self, request.into_inner()).map(Response::new)
    }

    async fn attach(&self, request: Request<Streaming<ProcessInput>>) -> Answer<Self::AttachStream> {
        Err(routed_before(request))
    }

    async fn exec(&self, request: Request<Streaming<ProcessInput>>) -> Answer<Self::ExecStream> {
        Err(routed_before(request))
    }

    async fn copy_in(&self, request: Request<Streaming<CopyInRequest>>) -> Answer<CopyInResponse> {
        Err(routed_before(request))
    }

    async fn copy_out(&self, request: Request<CopyOutRequest>) -> Answer<Self::CopyOutStream> {
        Err(routed_before(request))
    }

    async fn port_forward(
        &self,
        request: Request<Streaming<PortForwardRequest>>,
    ) -> Answer<Self::PortForwardStream> {
        port_forward::port_forward(self, request.into_inner()).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl Images for Session {
    type PullStream = Answers<PullResponse>;

    async fn push(&self, request: Request<Streaming<PushRequest>>) -> Answer<PushResponse> {
        images::push(self, request.into_inner()).await.map(Response::new)
    }

    async fn pull(&self, request: Request<PullRequest>) -> Answer<Self::PullStream> {
        images::pull(self, request.into_inner()).map(Response::new)
    }

    async fn list(&self, _: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        images::list(self).await.map(Response::new)
    }

    async fn remove(&self, request: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        images::remove(self, request.into_inner()).await.map(Response::new)
    }
}
