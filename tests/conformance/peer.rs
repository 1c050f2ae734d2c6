//! The same endpoint through the `ttrpc` crate's asynchronous client, which shares no code with the agent.

use std::time::Duration;

use postern_api::host;
use prost::Message;
use ttrpc::{Code, asynchronous::Client};

use crate::{
    raw::{AGENT, HEALTH},
    rig::{Agent, sandbox},
};

/// One call; its payload, or the code of the status.
async fn call(
    client: &Client,
    service: &str,
    method: &str,
    payload: Vec<u8>,
    timeout: Duration,
) -> anyhow::Result<Result<Vec<u8>, Code>> {
    let mut request = ttrpc::Request::new();
    request.service = service.into();
    request.method = method.into();
    request.payload = payload;
    request.timeout_nano = i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX);
    match client.request(request).await {
        Ok(response) => Ok(Ok(response.payload)),
        Err(ttrpc::Error::RpcStatus(status)) => Ok(Err(status.code())),
        // It watches its deadline itself as well, and may be the first to see it pass.
        Err(ttrpc::Error::Others(text)) if text.contains("deadline") => Ok(Err(Code::DEADLINE_EXCEEDED)),
        Err(other) => Err(other.into()),
    }
}

async fn connect(agent: &Agent) -> anyhow::Result<Client> {
    Ok(Client::connect(&agent.url()).await?)
}

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn speaks_with_an_independent_client() -> anyhow::Result<()> {
    let agent = Agent::start()?;
    let client = connect(&agent).await?;
    let call = |service, method, payload| call(&client, service, method, payload, PATIENCE);
    let answer = call(HEALTH, "Check", Vec::new()).await?.unwrap();
    assert_eq!(host::HealthCheckResponse::decode(&*answer)?.status, 1);
    assert_eq!(call(AGENT, "ExecProcess", vec![1, 2, 3]).await?, Err(Code::PERMISSION_DENIED));
    assert_eq!(call(AGENT, "Nonsense", Vec::new()).await?, Err(Code::UNIMPLEMENTED));
    assert_eq!(call("grpc.Nothing", "Check", Vec::new()).await?, Err(Code::INVALID_ARGUMENT));
    assert_eq!(call(AGENT, "CreateSandbox", sandbox().encode_to_vec()).await?, Ok(Vec::new()));
    let again = call(AGENT, "CreateSandbox", sandbox().encode_to_vec()).await?;
    assert_eq!(again, Err(Code::FAILED_PRECONDITION));
    Ok(())
}

#[tokio::test]
async fn its_calls_run_at_once_and_time_out() -> anyhow::Result<()> {
    let (agent, _host) = Agent::ready().await?;
    let client = connect(&agent).await?;
    let waiting = call(&client, AGENT, "GetOOMEvent", Vec::new(), Duration::from_millis(200));
    let quick = async {
        for _ in 0..100 {
            call(&client, HEALTH, "Check", Vec::new(), PATIENCE).await?.unwrap();
        }
        anyhow::Ok(())
    };
    let (waited, quick) = futures_util::future::join(waiting, quick).await;
    quick?;
    assert_eq!(waited?, Err(Code::DEADLINE_EXCEEDED));
    Ok(())
}

#[tokio::test]
async fn many_of_its_calls_in_any_order() -> anyhow::Result<()> {
    let agent = Agent::start()?;
    let client = connect(&agent).await?;
    let calls = (0..100).map(|_| call(&client, HEALTH, "Version", Vec::new(), PATIENCE));
    for answer in futures_util::future::join_all(calls).await {
        assert!(answer?.is_ok());
    }
    Ok(())
}
