//! The listening sockets: bound once, handed to every worker, never closed while an address is configured.
//!
//! The accept queue belongs to the socket and not to a worker, so a worker that dies takes only the connections it had
//! already accepted with it. A new generation may name other addresses: those are bound before anything else happens
//! (a failure rejects the generation), and the ones that are no longer named are closed once it is in force.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aegis_config::Config;
use aegis_ipc::handoff::{Audience, InheritedListener, ListenerAddress};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::SupervisorError;

pub mod activation;
mod unix;

pub use activation::Activated;
pub use unix::{Occupant, bind_unix};

/// Connections that wait in the kernel for a worker to accept them. The kernel caps it at `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// Names a listening socket for as long as it is open.
pub type ListenerId = u64;

/// One listening socket.
#[derive(Debug)]
struct Listener {
    /// What the configuration asked for; none for a socket of the service manager that nobody asked for.
    requested: Option<ListenerAddress>,
    /// What it is bound to.
    address: ListenerAddress,
    /// Who is served there when the configuration does not say.
    audience: Audience,
    origin: Origin,
    socket: OwnedFd,
}

/// Where a listening socket comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// Bound by us.
    #[default]
    Bound,
    /// Given by the service manager, which keeps it open too: never closed.
    Activated,
}

/// A socket in the service of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The socket.
    pub listener: ListenerId,
    /// Who is served there.
    pub audience: Audience,
}

/// All open listening sockets.
#[derive(Debug, Default)]
pub struct Listeners {
    open: BTreeMap<ListenerId, Listener>,
    next: ListenerId,
}

/// What a successor needs to know about a listening socket besides its descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerRecord {
    id: ListenerId,
    requested: Option<ListenerAddress>,
    address: ListenerAddress,
    audience: Audience,
    origin: Origin,
    /// Number of the inherited descriptor.
    pub descriptor: i32,
}

impl Listeners {
    /// Takes the sockets that the service manager opened for clients.
    pub fn add_activated(&mut self, activated: Activated) {
        let Activated { address, audience, socket, name } = activated;
        tracing::info!(?address, ?audience, name, "listening socket received from the service manager");
        self.insert(Listener { requested: None, address, audience, origin: Origin::Activated, socket });
    }

    /// Makes sure that every address of `config` has a socket, and says which ones serve it: sockets of the service
    /// manager that match by address, cover it or fill a port 0, sockets that are open already, new ones. Where nobody has
    /// said `listen`, what the service manager gives for clients takes its place. All failures
    /// at once; what was bound on the way is closed again then.
    pub fn prepare(&mut self, config: &Config) -> Result<Vec<Binding>, Vec<BindFailure>> {
        let mut bindings: Vec<Binding> = Vec::new();
        let mut failures = Vec::new();
        let first_new = self.next;
        let mut wanted = wanted(config);
        if config.listens_by_default && self.is_given_public(&wanted) {
            wanted.retain(|(_, audience)| *audience != Audience::Public);
        }
        let named = |address: &ListenerAddress| wanted.iter().any(|(wanted, _)| wanted == address);
        for (address, audience) in &wanted {
            let found = self.find(address, *audience, &bindings, named);
            let bound = found.map_or_else(|| self.bind(address, *audience, config), Ok);
            match bound.map_err(|failure| self.explain(failure, first_new)) {
                // A wildcard socket of the service manager may stand for several addresses.
                Ok(listener) if bindings.iter().any(|binding| binding.listener == listener) => {}
                Ok(listener) => bindings.push(Binding { listener, audience: *audience }),
                Err(failure) => failures.push(failure),
            }
        }
        if !failures.is_empty() {
            self.close("not all addresses of its generation can be bound", |id, _| id >= first_new);
            return Err(failures);
        }
        // A socket of the service manager that the configuration does not mention is served too: its clients would
        // wait in its queue for ever otherwise.
        for (id, listener) in &self.open {
            let unused = bindings.iter().all(|binding| binding.listener != *id);
            if listener.origin == Origin::Activated && unused {
                bindings.push(Binding { listener: *id, audience: listener.audience });
            }
        }
        Ok(bindings)
    }

    /// Whether the service manager has said where clients are served. What it is for that is `wanted` for operators by its
    /// address is said by that, whatever its name.
    fn is_given_public(&self, wanted: &[(ListenerAddress, Audience)]) -> bool {
        let is_for_operators = |listener: &Listener| {
            wanted
                .iter()
                .any(|(address, audience)| *audience == Audience::Admin && *address == listener.address)
        };
        let is_public = |listener: &Listener| {
            listener.origin == Origin::Activated
                && listener.audience == Audience::Public
                && !is_for_operators(listener)
        };
        self.open.values().any(is_public)
    }

    /// Closes the sockets that no generation in `kept` uses. Workers that still drain have inherited them, so they are
    /// shut down for everybody first: a client is refused at once instead of waiting in a queue that nobody reads.
    pub fn close_unused(&mut self, kept: &[&[Binding]]) {
        self.close("no generation needs it any more", |id, listener| {
            let used = kept.iter().any(|bindings| bindings.iter().any(|binding| binding.listener == id));
            !used && listener.origin == Origin::Bound
        });
    }

    /// Lets go of the sockets that we bound: the host stops. Each goes on until the last worker that accepts from it is
    /// done with that; then a client is refused at once instead of waiting for a host that leaves. Sockets of the service
    /// manager stay: their clients are for whoever is started next.
    pub fn let_go(&mut self) {
        self.open.retain(|_, listener| {
            let keep = listener.origin == Origin::Activated;
            if !keep {
                listener.remove_file();
            }
            keep
        });
    }

    /// Removes the files of our Unix sockets: the host ends.
    pub fn remove_files(&self) {
        self.open.values().for_each(Listener::remove_file);
    }

    fn close(&mut self, reason: &str, condemned: impl Fn(ListenerId, &Listener) -> bool) {
        self.open.retain(|id, listener| {
            let keep = !condemned(*id, listener);
            if !keep {
                tracing::info!(address = ?listener.address, "listening socket closed: {reason}");
                listener.remove_file();
                if let Err(error) = rustix::net::shutdown(&listener.socket, rustix::net::Shutdown::Both) {
                    tracing::debug!(%error, address = ?listener.address, "shutting a listening socket down failed");
                }
            }
            keep
        });
    }

    /// The announcement of `bindings` to a worker.
    #[must_use]
    pub fn announce(&self, bindings: &[Binding]) -> Vec<InheritedListener> {
        use std::os::fd::AsRawFd;
        let entry = |binding: &Binding| {
            let listener = self.open.get(&binding.listener)?;
            let descriptor = listener.socket.as_raw_fd();
            Some(InheritedListener {
                address: listener.address.clone(),
                audience: binding.audience,
                descriptor,
            })
        };
        bindings.iter().filter_map(entry).collect()
    }

    /// The descriptors of `bindings`, for a worker to inherit.
    pub fn descriptors<'a>(&'a self, bindings: &'a [Binding]) -> impl Iterator<Item = BorrowedFd<'a>> {
        bindings
            .iter()
            .filter_map(|binding| self.open.get(&binding.listener))
            .map(|listener| listener.socket.as_fd())
    }

    /// Where clients of `audience` connect, as URLs (`http://…`) or paths (`unix:…`).
    #[must_use]
    pub fn urls(&self, bindings: &[Binding], audience: Audience) -> Vec<String> {
        let mut urls = Vec::new();
        for binding in bindings.iter().filter(|binding| binding.audience == audience) {
            match self.open.get(&binding.listener).map(|listener| &listener.address) {
                Some(ListenerAddress::Tcp(address)) => urls.push(format!("http://{address}")),
                Some(ListenerAddress::Unix(path)) => urls.push(format!("unix:{}", path.display())),
                None => {}
            }
        }
        urls
    }

    /// What a successor needs, and the descriptors that go with it.
    pub fn records(&self) -> impl Iterator<Item = (ListenerRecord, BorrowedFd<'_>)> {
        use std::os::fd::AsRawFd;
        self.open.iter().map(|(id, listener)| {
            let record = ListenerRecord {
                id: *id,
                requested: listener.requested.clone(),
                address: listener.address.clone(),
                audience: listener.audience,
                origin: listener.origin,
                descriptor: listener.socket.as_raw_fd(),
            };
            (record, listener.socket.as_fd())
        })
    }

    /// Continues with a socket of a predecessor.
    pub fn restore(&mut self, record: ListenerRecord, socket: OwnedFd) {
        let ListenerRecord { id, requested, address, audience, origin, descriptor: _ } = record;
        self.open.insert(id, Listener { requested, address, audience, origin, socket });
        self.next = self.next.max(id + 1);
    }

    fn insert(&mut self, listener: Listener) -> ListenerId {
        let id = self.next;
        self.next += 1;
        self.open.insert(id, listener);
        id
    }

    /// Says so when it is the host itself that has the port: a socket that was bound before `first_new`.
    fn explain(&self, failure: BindFailure, first_new: ListenerId) -> BindFailure {
        let BindFailure::Tcp { address, .. } = failure else { return failure };
        if !failure.is_in_use() {
            return failure;
        }
        let mut bound = self.open.range(..first_new).filter(|(_, listener)| listener.origin == Origin::Bound);
        let own = bound.find_map(|(_, listener)| match &listener.address {
            ListenerAddress::Tcp(own) if own.port() == address.port() => Some(*own),
            ListenerAddress::Tcp(_) | ListenerAddress::Unix(_) => None,
        });
        own.map_or(failure, |own| BindFailure::Own { address, own })
    }

    /// An open socket for `address` that `taken` does not use yet. The same request is better than the same address,
    /// and that is better than a socket of the service manager, `named` nowhere, in place of any free port. One that
    /// covers the address may be taken already: nobody else could bind what it covers.
    fn find(
        &self,
        address: &ListenerAddress,
        audience: Audience,
        taken: &[Binding],
        named: impl Fn(&ListenerAddress) -> bool,
    ) -> Option<ListenerId> {
        let free = || self.open.iter().filter(|(id, _)| taken.iter().all(|binding| binding.listener != **id));
        let any_port = matches!(address, ListenerAddress::Tcp(address) if address.port() == 0);
        let fills = |listener: &Listener| {
            let tcp = matches!(listener.address, ListenerAddress::Tcp(_));
            let given = listener.origin == Origin::Activated && listener.audience == audience;
            any_port && tcp && given && !named(&listener.address)
        };
        free()
            .find(|(_, listener)| listener.requested.as_ref() == Some(address))
            .or_else(|| free().find(|(_, listener)| listener.address == *address))
            .or_else(|| free().find(|(_, listener)| fills(listener)))
            .or_else(|| {
                self.open
                    .iter()
                    .find(|(_, listener)| listener.audience == audience && listener.covers(address))
            })
            .map(|(id, _)| *id)
    }

    fn bind(
        &mut self,
        wanted: &ListenerAddress,
        audience: Audience,
        config: &Config,
    ) -> Result<ListenerId, BindFailure> {
        let (socket, address) = match wanted {
            ListenerAddress::Tcp(address) => bind_tcp(*address, family(*address, config))?,
            ListenerAddress::Unix(path) => {
                // Inside the data directory, which is locked, only the children of a dead predecessor can be.
                let ours = aegis_config::located(path).starts_with(&config.data_dir);
                let occupant = if ours { Occupant::Replace } else { Occupant::Ask };
                (bind_unix(path, occupant)?, wanted.clone())
            }
        };
        let requested = Some(wanted.clone());
        Ok(self.insert(Listener { requested, address, audience, origin: Origin::Bound, socket }))
    }
}

impl Listener {
    /// Whether this is a wildcard socket of the service manager that takes the clients of `wanted` too. One that we
    /// bound does not count: a configuration that narrows its addresses must not leave the others open.
    fn covers(&self, wanted: &ListenerAddress) -> bool {
        let (ListenerAddress::Tcp(own), ListenerAddress::Tcp(wanted)) = (&self.address, wanted) else {
            return false;
        };
        let takes_family = own.is_ipv4() == wanted.is_ipv4()
            || (own.is_ipv6() && SockRef::from(&self.socket).only_v6().is_ok_and(|only| !only));
        let is_wildcard = self.origin == Origin::Activated && own.ip().is_unspecified();
        is_wildcard && own.port() == wanted.port() && takes_family
    }

    fn remove_file(&self) {
        if let (Origin::Bound, ListenerAddress::Unix(path)) = (self.origin, &self.address)
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(%error, path = %path.display(), "removing a socket file failed");
        }
    }
}

/// Every address that `config` names, with who is served there.
fn wanted(config: &Config) -> Vec<(ListenerAddress, Audience)> {
    let public = config.listen.iter().map(|address| (ListenerAddress::Tcp(*address), Audience::Public));
    let admin = config.admin_listen.iter().map(|address| (ListenerAddress::Tcp(*address), Audience::Admin));
    let socket = (ListenerAddress::Unix(config.admin_socket.clone()), Audience::Admin);
    public.chain(admin).chain([socket]).collect()
}

/// An address that could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindFailure {
    /// A TCP address.
    #[error("cannot listen on {address}: {error}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A TCP address on a port of which the host itself has another one, kept until the new one is in force.
    #[error(
        "cannot listen on {address}: the host itself listens on {own}, and a reload cannot exchange two \
         addresses of one port; name another port, or stop the host and start it anew"
    )]
    Own {
        /// The address.
        address: SocketAddr,
        /// What the host has.
        own: SocketAddr,
    },
    /// A Unix socket.
    #[error("{}", crate::with_causes(.0))]
    Unix(#[from] SupervisorError),
}

impl BindFailure {
    /// Whether somebody else has the address now. Children of a killed predecessor let go of it when they finish.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        match self {
            Self::Tcp { error, .. } => error.kind() == io::ErrorKind::AddrInUse,
            Self::Own { .. } => true,
            Self::Unix(error) => matches!(error, SupervisorError::UnixSocketTaken { .. }),
        }
    }
}

/// Which clients an IPv6 wildcard address takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Only its own.
    Own,
    /// IPv4 too.
    Both,
}

/// An IPv6 wildcard takes IPv4 clients too, unless IPv4 has an address of its own on that port.
fn family(address: SocketAddr, config: &Config) -> Family {
    let rival = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port() && address.port() != 0;
    if config.listen.iter().chain(&config.admin_listen).any(rival) { Family::Own } else { Family::Both }
}

fn bind_tcp(address: SocketAddr, family: Family) -> Result<(OwnedFd, ListenerAddress), BindFailure> {
    let bind = || {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        // Connections of a predecessor in TIME_WAIT must not keep us from the address.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(family == Family::Own)?;
        }
        // Accepted connections inherit it: one system call less for each of them.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let bound = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok((socket.into(), ListenerAddress::Tcp(bound)))
    };
    bind().map_err(|error| BindFailure::Tcp { address, error })
}

/// The address of a listening socket, as it is announced.
fn announced_address(address: &SockAddr) -> Option<ListenerAddress> {
    address
        .as_socket()
        .map(ListenerAddress::Tcp)
        .or_else(|| address.as_pathname().map(Path::to_path_buf).map(ListenerAddress::Unix))
}

/// The directory of a socket file, made if it is not there.
pub fn make_parent(path: &Path) -> Result<PathBuf, SupervisorError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .map_err(|error| SupervisorError::os(format!("creating the folder {}", parent.display()), error))?;
    Ok(parent.to_owned())
}

#[cfg(test)]
mod tests;
