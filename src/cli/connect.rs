//! From `--connect` or discovery to servers that answer.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::time::Duration;

use super::args::{ClientArgs, ConnectArgs};
use super::{complain, password};
use crate::client::discovery::discover;
use crate::client::{ChatClient, ClientSettings, Password};
use crate::domain::content::ServerAddress;
use crate::error::StartError;
use crate::network::UDPHandler;

/// How long discovery waits for an answer.
const DISCOVERY_LIMIT: Duration = Duration::from_secs(2);

/// The servers that were named, or else what answers first.
pub(super) fn servers(args: &ConnectArgs) -> Result<Vec<String>, StartError> {
    let no_socket = |error| StartError::Other(format!("cannot open a UDP socket: {error}"));
    let udp = UDPHandler::bind(0).map_err(no_socket)?;
    or_found(args.addresses()?, args, |port, found| {
        discover(&udp, &args.cluster, port, DISCOVERY_LIMIT, found);
    })
}

/// A client that is connected, in no room yet. At a terminal the user is asked for a password when one is needed.
pub(super) fn client(args: &ClientArgs) -> Result<ChatClient, StartError> {
    let given = password::given(args.password_file.as_deref())?;
    let may_ask = given.is_none() && std::io::stdin().is_terminal();
    match connected(args, given) {
        Err(StartError::PasswordNeeded(reason)) if may_ask => {
            complain(&reason);
            let asked = password::asked(&args.name)?;
            connected(args, Some(asked))
        }
        other => other,
    }
}

fn connected(args: &ClientArgs, password: Option<Password>) -> Result<ChatClient, StartError> {
    let named = args.connect.addresses()?;
    let client = ChatClient::new(ClientSettings {
        username: args.name.clone(),
        cluster: args.connect.cluster.clone(),
        frame_bytes_max: args.frame_bytes_max,
        password,
        outbox: args.outbox.clone(),
    })?;
    let addresses = or_found(named, &args.connect, |port, found| {
        client.discover_server(port, found);
    })?;
    client.start_any(&addresses)?;
    Ok(client)
}

/// `named`, or when none are what `discover` finds first. It is handed the port and what takes an answer.
fn or_found(
    named: Vec<String>,
    args: &ConnectArgs,
    discover: impl FnOnce(u16, &mut dyn FnMut(&[ServerAddress]) -> ControlFlow<()>),
) -> Result<Vec<String>, StartError> {
    if !named.is_empty() {
        return Ok(named);
    }
    let mut addresses = Vec::new();
    discover(args.discovery_port, &mut |servers| {
        addresses = servers.iter().map(|server| server.address.clone()).collect();
        if addresses.is_empty() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if addresses.is_empty() {
        return Err(StartError::Other(format!(
            "no server of the cluster {:?} answers on UDP port {}; start one, or name one with --connect HOST:PORT",
            args.cluster, args.discovery_port
        )));
    }
    Ok(addresses)
}
