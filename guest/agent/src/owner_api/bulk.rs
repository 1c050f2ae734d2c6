//! The calls that carry bytes in bulk: taken out before the generated services, so that no payload is copied on its
//! way between HTTP/2 and a pipe.

use futures_util::stream;
use hyper::{Request, Response, body::Incoming as Received};
use postern_api::bulk::{Incoming, answer};
use tonic::{Status, body::Body};

use super::{attach, copy, exec, server::MAX_MESSAGE, session::Session};

/// One of these calls.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call {
    Attach,
    CopyIn,
    CopyOut,
    Exec,
}

impl Call {
    pub(super) fn at(path: &str) -> Option<Self> {
        match path {
            "/postern.v1.Containers/Attach" => Some(Self::Attach),
            "/postern.v1.Containers/CopyIn" => Some(Self::CopyIn),
            "/postern.v1.Containers/CopyOut" => Some(Self::CopyOut),
            "/postern.v1.Containers/Exec" => Some(Self::Exec),
            _ => None,
        }
    }

    pub(super) async fn serve(self, session: &Session, request: Request<Received>) -> Response<Body> {
        let body = Body::new(request.into_body());
        self.carry_out(session, body).await.unwrap_or_else(Status::into_http)
    }

    async fn carry_out(self, session: &Session, body: Body) -> Result<Response<Body>, Status> {
        Ok(match self {
            Self::Attach => answer(attach::attach(session, Incoming::request(body, MAX_MESSAGE)).await?),
            Self::Exec => answer(exec::exec(session, Incoming::request(body, MAX_MESSAGE)).await?),
            Self::CopyIn => {
                let done = copy::copy_in(session, Incoming::request(body, MAX_MESSAGE)).await?;
                answer(stream::iter([Ok(done)]))
            }
            Self::CopyOut => {
                let mut requests = Incoming::request(body, MAX_MESSAGE);
                let request = requests.message().await?;
                let request = request.ok_or_else(|| Status::invalid_argument("the call has no request"))?;
                answer(copy::copy_out(session, request).await?)
            }
        })
    }
}
