//! How many files and sockets this process may open: each connection is one.
//!
//! Systems give a process two limits: the one that holds, often 1,024, and a higher one up to which it may raise that
//! by itself. A server does so when it starts, and tells how to go on where that is not enough.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::StartError;

/// With fewer a server cannot serve: its log, its sockets and a few connections.
const SERVER_LEAST: u64 = 64;
/// With fewer it says so when it starts.
const SERVER_WANTS: u64 = 12_000;

/// How to raise the limit, for messages.
pub const REMEDY: &str = "raise it: `ulimit -Hn` as root, LimitNOFILE= in a systemd unit, \
                          --ulimit nofile= for a container";

/// How many files this process may open at most, once [`raise`]d.
pub fn most() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Raises the limit as far as the system allows without privileges, for this process and those that it starts.
/// Returns it.
pub fn raise() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let (most, now) = (limit.maximum.unwrap_or(u64::MAX), limit.current.unwrap_or(u64::MAX));
    if now < most {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised)?;
    }
    Ok(most)
}

/// [`raise`]s the limit for a server, and says how many connections that makes where ten thousand are too many.
pub fn raise_for_server() -> Result<(), StartError> {
    let raised = raise();
    let limit = raised.as_ref().map_or_else(|_| now(), |most| *most);
    if let Err(error) = raised {
        log::warn!("cannot raise the limit of open files above {limit}: {error}");
    }
    if limit < SERVER_LEAST {
        return Err(StartError::Other(format!(
            "the limit of open files is {limit}, and a server takes {SERVER_LEAST} or more; {REMEDY}"
        )));
    }
    if limit < SERVER_WANTS {
        log::info!(
            "takes about {} connections: so many files may be open; {REMEDY}",
            limit - SERVER_LEAST / 2
        );
    }
    Ok(())
}

/// What to add to an error of the system that says that no more can be opened; nothing for other errors.
pub fn hint(error: &io::Error) -> String {
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::MFILE) => format!(" (the limit is {}; {REMEDY})", now()),
        _ => String::new(),
    }
}

fn now() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        assert_eq!(raise().unwrap(), most());
        assert_eq!(now(), most());
        raise_for_server().unwrap();
    }

    #[test]
    fn only_the_error_about_the_limit_gets_the_remedy() {
        let too_many = io::Error::from(rustix::io::Errno::MFILE);
        assert!(hint(&too_many).contains("LimitNOFILE="), "{}", hint(&too_many));
        assert_eq!(hint(&io::ErrorKind::ConnectionReset.into()), "");
    }
}
