//! The owner's side of these calls, over any channel that a generated client works over.

use std::future::poll_fn;

use tonic::{
    Response, Status,
    body::Body,
    client::GrpcService,
    codegen::{
        StdError,
        http::{self, HeaderValue, Method, StatusCode, Uri, Version, header, uri::PathAndQuery},
        tokio_stream::{self, Stream, StreamExt as _},
    },
};

use super::{
    Bulk, Incoming,
    outgoing::{CONTENT, Outgoing, Side},
};
use crate::owner::{
    CopyInRequest, CopyInResponse, CopyOutRequest, CopyOutResponse, ProcessInput, ProcessOutput,
};

/// Calls of `Containers` that carry bytes in bulk.
#[derive(Debug, Clone)]
pub struct Client<C> {
    channel: C,
    origin: Uri,
    limit: usize,
}

impl<C> Client<C>
where
    C: GrpcService<Body>,
    C::Error: Into<StdError>,
    C::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <C::ResponseBody as http_body::Body>::Error: Into<StdError>,
{
    /// Takes answers in messages of at most `limit` bytes.
    pub fn new(channel: C, origin: Uri, limit: usize) -> Self {
        Self { channel, origin, limit }
    }

    pub async fn exec(
        &mut self,
        input: impl Stream<Item = ProcessInput> + Send + 'static,
    ) -> Result<Response<Incoming<ProcessOutput>>, Status> {
        self.call("/postern.v1.Containers/Exec", input).await
    }

    pub async fn attach(
        &mut self,
        input: impl Stream<Item = ProcessInput> + Send + 'static,
    ) -> Result<Response<Incoming<ProcessOutput>>, Status> {
        self.call("/postern.v1.Containers/Attach", input).await
    }

    pub async fn copy_out(
        &mut self,
        request: CopyOutRequest,
    ) -> Result<Response<Incoming<CopyOutResponse>>, Status> {
        self.call("/postern.v1.Containers/CopyOut", tokio_stream::once(request)).await
    }

    pub async fn copy_in(
        &mut self,
        input: impl Stream<Item = CopyInRequest> + Send + 'static,
    ) -> Result<Response<CopyInResponse>, Status> {
        let mut answers = self.call("/postern.v1.Containers/CopyIn", input).await?.into_inner();
        let answer = answers.message().await?;
        let answer = answer.ok_or_else(|| Status::internal("the call was answered with nothing"))?;
        // Only its end says that it went well.
        match answers.message().await? {
            None => Ok(Response::new(answer)),
            Some(_) => Err(Status::internal("the call was answered twice")),
        }
    }

    async fn call<M: Bulk, A: Bulk>(
        &mut self,
        path: &'static str,
        messages: impl Stream<Item = M> + Send + 'static,
    ) -> Result<Response<Incoming<A>>, Status> {
        let body = Outgoing::new(Box::pin(messages.map(Ok::<M, Status>)), Side::Client);
        let request = self.request(path, Body::new(body))?;
        poll_fn(|cx| self.channel.poll_ready(cx)).await.map_err(|error| Status::from_error(error.into()))?;
        let response = self.channel.call(request).await.map_err(|error| Status::from_error(error.into()))?;
        if let Some(status) = Status::from_header_map(response.headers()) {
            return match status.code() {
                tonic::Code::Ok => Err(Status::internal("the call was answered with nothing")),
                _ => Err(status),
            };
        }
        if response.status() != StatusCode::OK {
            return Err(Status::unknown(format!("the call was answered with HTTP {}", response.status())));
        }
        Ok(Response::new(Incoming::response(Body::new(response.into_body()), self.limit)))
    }

    fn request(&self, path: &'static str, body: Body) -> Result<http::Request<Body>, Status> {
        let mut parts = self.origin.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::from_static(path));
        let uri = Uri::from_parts(parts).map_err(|error| Status::internal(error.to_string()))?;
        let mut request = http::Request::new(body);
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri;
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        request.headers_mut().insert(header::CONTENT_TYPE, CONTENT);
        Ok(request)
    }
}
