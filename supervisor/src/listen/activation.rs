//! Sockets that the service manager opened for us, in the protocol of `sd_listen_fds(3)`.
//!
//! A socket is recognised by its address when the configuration names it or an address that a wildcard covers, else by
//! its name (`FileDescriptorName=` in the socket unit): `control` is the operator's socket, `admin` serves operators
//! over HTTP, anything else serves the API, and is all that does where nobody has said `listen`.

use std::os::fd::{OwnedFd, RawFd};

use aegis_ipc::handoff::{self, Audience, ListenerAddress};
use socket2::{SockRef, Type};

use super::announced_address;
use crate::SupervisorError;

/// First descriptor that the service manager passes.
const FIRST_DESCRIPTOR: RawFd = 3;
/// Most sockets taken.
const SOCKETS_MAX: usize = 64;
/// Name of the operator's socket.
const CONTROL: &str = "control";
/// Name of a socket for operators over HTTP.
const ADMIN: &str = "admin";

/// One received listening socket.
#[derive(Debug)]
pub struct Activated {
    /// What it is bound to.
    pub address: ListenerAddress,
    /// Who is served there when the configuration does not say.
    pub audience: Audience,
    /// The socket.
    pub socket: OwnedFd,
    /// The name it was given.
    pub name: String,
}

/// Everything received.
#[derive(Debug, Default)]
pub struct Activation {
    /// The operator's socket.
    pub control: Option<Activated>,
    /// Sockets for clients.
    pub clients: Vec<Activated>,
}

impl Activation {
    /// Takes the sockets announced in the environment. Call it once, before descriptors are opened or closed.
    pub fn from_environment() -> Result<Self, SupervisorError> {
        let variable = |name: &str| std::env::var(name).ok();
        let (pid, count, names) =
            (variable("LISTEN_PID"), variable("LISTEN_FDS"), variable("LISTEN_FDNAMES"));
        let announced = announced(std::process::id(), pid.as_deref(), count.as_deref(), names.as_deref())?;
        let mut activation = Self::default();
        for (descriptor, name) in announced {
            let socket = handoff::adopt(descriptor, &format!("socket {name} of the service manager"))?;
            let activated = examine(socket, name)?;
            if activated.name == CONTROL && matches!(activated.address, ListenerAddress::Unix(_)) {
                activation.control = Some(activated);
            } else {
                activation.clients.push(activated);
            }
        }
        Ok(activation)
    }
}

/// Which descriptors are announced for the process `own`, with their names.
fn announced(
    own: u32,
    pid: Option<&str>,
    count: Option<&str>,
    names: Option<&str>,
) -> Result<Vec<(RawFd, String)>, SupervisorError> {
    let unexpected = |object: &str, found: &str, expected: String| SupervisorError::Activation {
        object: object.to_owned(),
        found: found.to_owned(),
        expected,
    };
    let (Some(pid), Some(count)) = (pid, count) else { return Ok(Vec::new()) };
    let meant = pid.parse::<u32>().map_err(|_| unexpected("LISTEN_PID", pid, "a process id".to_owned()))?;
    if meant != own {
        return Ok(Vec::new()); // inherited through somebody else: not for us
    }
    let count = match count.parse::<usize>() {
        Ok(number) if number <= SOCKETS_MAX => number,
        _ => return Err(unexpected("LISTEN_FDS", count, format!("a number of sockets up to {SOCKETS_MAX}"))),
    };
    let names: Vec<String> = match names {
        None | Some("") => vec!["unknown".to_owned(); count],
        Some(names) => names.split(':').map(str::to_owned).collect(),
    };
    if names.len() != count {
        let found = format!("{} names", names.len());
        return Err(unexpected("LISTEN_FDNAMES", &found, format!("{count}, as LISTEN_FDS says")));
    }
    Ok((FIRST_DESCRIPTOR..).zip(names).collect())
}

fn examine(socket: OwnedFd, name: String) -> Result<Activated, SupervisorError> {
    let unexpected = |found: &str| SupervisorError::Activation {
        object: format!("socket {name:?}"),
        found: found.to_owned(),
        expected: "a listening TCP or Unix stream socket".to_owned(),
    };
    let view = SockRef::from(&socket);
    match view.r#type() {
        Ok(Type::STREAM) => {}
        Ok(_) => return Err(unexpected("a socket of another type")),
        Err(_) => return Err(unexpected("no socket")),
    }
    if !view.is_listener().unwrap_or(false) {
        return Err(unexpected("a socket that does not listen"));
    }
    let address = view.local_addr().ok().as_ref().and_then(announced_address);
    let Some(address) = address else { return Err(unexpected("an address of another family")) };
    view.set_nonblocking(true)
        .map_err(|error| SupervisorError::os(format!("making the socket {name:?} non-blocking"), error))?;
    let audience = if name == ADMIN { Audience::Admin } else { Audience::Public };
    Ok(Activated { address, audience, socket, name })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn sockets_are_counted_from_three_and_named() {
        let found = announced(7, Some("7"), Some("2"), Some("api:admin")).unwrap();
        assert_eq!(found, [(3, "api".to_owned()), (4, "admin".to_owned())]);
        assert_eq!(announced(7, Some("7"), Some("1"), None).unwrap(), [(3, "unknown".to_owned())]);
        assert_eq!(announced(7, Some("7"), Some("0"), None).unwrap(), []);
    }

    #[test]
    fn what_is_meant_for_another_process_is_left_alone() {
        assert_eq!(announced(7, Some("8"), Some("2"), Some("a:b")).unwrap(), []);
        assert_eq!(announced(7, None, Some("2"), None).unwrap(), []);
        assert_eq!(announced(7, Some("7"), None, None).unwrap(), []);
    }

    #[test]
    fn contradictions_are_named() {
        let message =
            |pid, count, names| announced(7, Some(pid), Some(count), names).unwrap_err().to_string();
        let messages = [
            message("x", "1", None),
            message("7", "-1", None),
            message("7", "65", None),
            message("7", "2", Some("a")),
        ];
        insta::assert_debug_snapshot!(messages, @r#"
        [
            "socket activation: LISTEN_PID: found x, expected a process id",
            "socket activation: LISTEN_FDS: found -1, expected a number of sockets up to 64",
            "socket activation: LISTEN_FDS: found 65, expected a number of sockets up to 64",
            "socket activation: LISTEN_FDNAMES: found 1 names, expected 2, as LISTEN_FDS says",
        ]
        "#);
    }

    #[test]
    fn only_listening_sockets_are_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let activated = examine(listener.into(), "admin".to_owned()).unwrap();
        assert_eq!(activated.address, ListenerAddress::Tcp(address));
        assert_eq!(activated.audience, Audience::Admin);

        let file = tempfile::tempfile().unwrap();
        let error = examine(file.into(), "api".to_owned()).unwrap_err().to_string();
        assert_eq!(
            error,
            "socket activation: socket \"api\": found no socket, expected a listening TCP or Unix stream socket"
        );
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(examine(one.into(), "api".to_owned()).unwrap_err().to_string().contains("does not listen"));
    }
}
