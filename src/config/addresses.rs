//! Addresses as people write them.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use super::usage;
use crate::error::StartError;

/// Splits `host:port`; the host may be a name that only others can resolve.
pub(crate) fn check_address(flag: &str, address: &str) -> Result<(String, u16), StartError> {
    let split = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match split.and_then(|(host, port)| Some((host.to_string(), port.parse::<u16>().ok()?))) {
        Some((_, 0)) => {
            usage(format!("{flag} {address}: port 0 cannot be connected to; name the real port"))
        }
        Some(parts) => Ok(parts),
        None => usage(format!("{flag} {address:?} is not HOST:PORT, such as 127.0.0.1:7001")),
    }
}

pub(super) fn check_advertise(address: &str) -> Result<(), StartError> {
    let (host, _) = check_address("--advertise", address)?;
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    if ip.is_ok_and(|ip| ip.is_unspecified()) {
        return usage(format!(
            "--advertise {address} is no address that others can connect to; \
             give the address of this machine in their network"
        ));
    }
    Ok(())
}

pub(super) fn resolve_listen(address: &str) -> Result<SocketAddr, StartError> {
    let refuse = |reason: String| usage(format!("--listen {address:?} {reason}"));
    match address.to_socket_addrs().map(|mut addresses| addresses.next()) {
        Ok(Some(found)) => Ok(found),
        Ok(None) => refuse("has no address".into()),
        Err(error) => refuse(format!("is not HOST:PORT, such as 127.0.0.1:7001 ({error})")),
    }
}

/// What to tell others: where we listen, or for a wildcard the address from which this machine would speak to the
/// outside.
pub(super) fn advertised_ip(listen: IpAddr, advertise_given: bool) -> Result<IpAddr, StartError> {
    if advertise_given || !listen.is_unspecified() {
        return Ok(listen);
    }
    // Connecting a UDP socket sends nothing; it only chooses a route. The address is one for documentation.
    let route =
        if listen.is_ipv4() { ("0.0.0.0:0", "192.0.2.1:9") } else { ("[::]:0", "[2001:db8::1]:9") };
    let outward = UdpSocket::bind(route.0)
        .and_then(|socket| socket.connect(route.1).and_then(|()| socket.local_addr()));
    match outward {
        Ok(address) if !address.ip().is_unspecified() => Ok(address.ip()),
        _ => usage(format!(
            "--listen {listen} is every address of this machine, and none leads outward; \
             say with --advertise HOST:PORT where others reach it"
        )),
    }
}
