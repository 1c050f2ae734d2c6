//! Any byte stream carries the tunnel.

use std::{
    net::TcpStream,
    os::unix::net::{UnixListener, UnixStream},
    thread,
};

use crate::rig::{Pod, pump};

#[test]
fn a_unix_socket_and_a_command_carry_it_too() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    let socket = pod.path("pod.sock");
    let listener = UnixListener::bind(&socket)?;
    let address = pod.address.clone();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(&address)) else { return };
            relay(client, server);
        }
    });
    pod.add("by-socket", &format!("unix://{}", socket.display()));
    pod.ok(&["pod", "verify", "by-socket"]);
    assert_eq!(pod.ok(&["exec", "by-socket/web", "echo", "hello"]).text(), "hello\n");

    let (host, port) = pod.address.split_once(':').expect("an address");
    pod.add("by-command", &format!("exec:busybox nc {host} {port}"));
    let data = vec![7; 300_000];
    let said = pod.postern_with_input(&["exec", "-i", "by-command/web", "cat"], &data);
    assert!(said.stdout == data, "{} {}", said.code, said.stderr);
    pod.add("no-command", "exec:/no/such/program");
    pod.fails_with(4, &["ps", "no-command"]);
    Ok(())
}

fn relay(client: UnixStream, server: TcpStream) {
    if let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) {
        thread::spawn(move || pump(from, to));
    }
    thread::spawn(move || pump(server, client));
}
