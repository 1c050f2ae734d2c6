//! Running a further process in a running container.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use postern_model::ContainerName;
use tokio::sync::oneshot;

use super::{
    Created, ExecError, ExecProcess, Failure, FailureKind, Runtime, Shared,
    container::{Container, Stage},
    create::terminal,
};
use crate::{
    io::{Stdio, open_pipes},
    process::{Process, Signal},
    worker::{
        WorkerError,
        pool::Job,
        protocol::{ExecRequest, ExecUser, Home, Reply, Request},
    },
};

impl Runtime {
    /// Runs a further process in a running container; returns when it runs.
    pub async fn exec(
        &self,
        id: &ContainerName,
        process: ExecProcess,
        stdio: Stdio,
    ) -> Result<Created, ExecError> {
        let container =
            self.shared.container(id).ok_or_else(|| ExecError::UnknownContainer(id.to_string()))?;
        if process.args.first().is_none_or(String::is_empty) {
            return Err(ExecError::NoCommand);
        }
        let shared = Arc::clone(&self.shared);
        let (answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            // Nobody would ever end a process whose caller went away before it learned of it.
            if let Err(Ok(created)) = answer.send(shared.exec(&container, process, stdio).await) {
                let _ = created.process.signal(Signal::KILL);
            }
        });
        answered.await.unwrap_or(Err(ExecError::Worker(WorkerError::Died)))
    }
}

impl Shared {
    async fn exec(
        &self,
        container: &Container,
        process: ExecProcess,
        stdio: Stdio,
    ) -> Result<Created, ExecError> {
        match *container.stage.lock().await {
            Stage::Running if container.process.exit().now().is_none() => {}
            // A process born frozen would never answer.
            Stage::Paused => return Err(ExecError::Paused(container.id.clone())),
            _ => return Err(ExecError::NotRunning(container.id.clone())),
        }
        let pipes = open_pipes(stdio).map_err(ExecError::Stdio)?;
        let mut fds: Vec<BorrowedFd<'_>> = vec![container.process.pidfd().as_fd()];
        fds.extend(pipes.iter().flat_map(|(child, _)| child.iter().map(AsFd::as_fd)));
        let request = Request::Exec(request(container, process, stdio));
        let mut job = self.pool.begin(&request, &container.filter, &fds).await.map_err(ExecError::Worker)?;
        let io = pipes.map(|(_, io)| io);
        let mut answer = job.answer().await.map_err(ExecError::Worker)?;
        let pid = match answer.body {
            Reply::Spawned { pid } => pid,
            Reply::Failed(failure) => return Err(ExecError::Refused(failure)),
            _ => return Err(ExecError::Worker(WorkerError::Protocol)),
        };
        let mut next = || answer.attached.fd().map_err(ExecError::Stdio);
        let pidfd = next()?;
        let exit = self.reaper.exit_of_pinned(pid, Some(&pidfd));
        let process = Process::new(pid, pidfd, exit);
        let io = match io {
            Some(io) => io,
            None => terminal(next()?, stdio).map_err(ExecError::Stdio)?,
        };
        match launch(&mut job).await {
            Ok(()) => {
                job.finished();
                Ok(Created { process, io })
            }
            Err(error) => {
                // It waits for a word that will not come, or has ended by itself.
                let _ = process.signal(Signal::KILL);
                Err(error)
            }
        }
    }
}

/// Now that the process is in our charge: let it become the command.
async fn launch(job: &mut Job) -> Result<(), ExecError> {
    job.release();
    job.go().await.map_err(|error| match error {
        // Killed before its first instruction: so was the container.
        WorkerError::Died => ExecError::Refused(Failure::new(FailureKind::Ended, "the container has ended")),
        error => ExecError::Worker(error),
    })?;
    match job.next().await.map_err(ExecError::Worker)?.map(|answer| answer.body) {
        None => Ok(()),
        Some(Reply::Failed(failure)) => Err(ExecError::Refused(failure)),
        Some(_) => Err(ExecError::Worker(WorkerError::Protocol)),
    }
}

fn request(container: &Container, process: ExecProcess, stdio: Stdio) -> ExecRequest {
    let defaults = &container.defaults;
    let ExecProcess { args, env, cwd, user } = process;
    let mut variables: BTreeMap<&str, &str> =
        defaults.env.iter().filter_map(|pair| pair.split_once('=')).collect();
    // Another user has another home.
    let home = match user.is_some() && !env.contains_key("HOME") {
        true => Home::OfUser,
        false => Home::Given,
    };
    if home == Home::OfUser {
        variables.remove("HOME");
    }
    if matches!(stdio, Stdio::Terminal(_)) {
        variables.entry("TERM").or_insert("xterm");
    }
    variables.extend(env.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let env = variables.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let user = match user {
        Some(user) => ExecUser::Named(user),
        None => ExecUser::Ids { uid: defaults.uid, gid: defaults.gid, groups: defaults.groups.clone() },
    };
    let terminal = match stdio {
        Stdio::Terminal(size) => Some((size.rows, size.columns)),
        Stdio::Pipes | Stdio::OutputOnly | Stdio::Closed => None,
    };
    ExecRequest {
        cgroup: container.cgroup.join(),
        args,
        env,
        home,
        cwd: cwd.unwrap_or_else(|| defaults.cwd.clone()),
        user,
        terminal,
        confinement: defaults.confinement.clone(),
    }
}
