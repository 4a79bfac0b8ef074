//! Requests of modules to other systems.
//!
//! ```text
//! address ─▶ place ─▶ granted? ─▶ resolve ─▶ may every address be reached? ─▶ connect to one of them ─▶ ask
//!              ▲          (the decisions are pure: aegis_domain::outgoing)                              │
//!              └──────────────────────────── redirect, at most 5 ◀──────────────────────────────────────┘
//! ```
//!
//! A name is looked up once for each connection, and the connection is made to an address that was looked at: whoever
//! runs the name has no second say. Nothing of the environment has one either; there are no proxies. A connection is
//! used again only by the module that made it, and ends at once when whoever waits for an answer is gone.

mod ask;
mod body;
mod link;
mod place;
mod pool;
mod resolve;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt::Display,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use aegis_domain::outgoing::{Denial, Host, Target, is_granted_as_such, may_ask, may_reach};
use aegis_ipc::board::{Cell, Counter};
use aegis_wasm::{Asker, Dispatch, OutgoingError, Reply, StreamedBody, Waits};
use http::{HeaderMap, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout_at,
};

use self::{
    ask::Ask,
    body::Streamed,
    link::{Connector, Link},
    place::Place,
    pool::{Line, Pool},
    resolve::{Resolve, SystemResolver},
};

/// Redirects of one request.
const REDIRECTS_MAX: u32 = 5;
/// Requests under way in one worker.
const REQUESTS_MAX: usize = 256;
/// Requests under way of one module in one worker.
const MODULE_REQUESTS_MAX: usize = 32;
/// Addresses of one name that are looked at.
const ADDRESSES_MAX: usize = 16;

/// Sends the requests of all modules of a worker.
pub(crate) struct Outgoing {
    resolver: Arc<dyn Resolve>,
    connector: Connector,
    pool: Pool,
    places: Arc<Semaphore>,
    /// One entry for each module that ever asked.
    module_places: Mutex<HashMap<String, Arc<Semaphore>>>,
    cell: Cell,
}

/// A connection and the right to use it, for one request. It ends with this, unless it is given back.
pub(super) struct Lease {
    link: Link,
    line: Line,
    pool: Pool,
    _places: [OwnedSemaphorePermit; 2],
}

impl Lease {
    /// The answer was read to its end: the next request may use the connection.
    fn give_back(self) {
        self.pool.put(self.line, self.link);
    }
}

impl Outgoing {
    pub(crate) fn new(cell: Cell) -> Self {
        Self::with(Arc::new(SystemResolver::default()), Connector::default(), cell)
    }

    fn with(resolver: Arc<dyn Resolve>, connector: Connector, cell: Cell) -> Self {
        Self {
            resolver,
            connector,
            pool: Pool::default(),
            places: Arc::new(Semaphore::new(REQUESTS_MAX)),
            module_places: Mutex::new(HashMap::new()),
            cell,
        }
    }

    /// Sends a whole request, follows redirects, and answers with the whole answer.
    pub(crate) async fn send(&self, asker: Asker<'_>, dispatch: Dispatch) -> Result<Reply, OutgoingError> {
        let deadline = earlier(asker.deadline, dispatch.timeout);
        let sent = timeout_at(deadline.into(), self.follow(asker, dispatch)).await;
        self.counted(
            sent.unwrap_or_else(|_| Err(OutgoingError::Late("there was no answer in time".to_owned()))),
        )
    }

    /// Sends a request whose bodies are streamed, and answers with the head of whatever comes: redirects are the
    /// code's business, each of its requests is looked at anew.
    pub(crate) async fn stream(
        &self,
        asker: Asker<'_>,
        request: Request<StreamedBody>,
        waits: Waits,
    ) -> Result<Response<StreamedBody>, OutgoingError> {
        let head_by = earlier(asker.deadline, waits.head);
        let sent = timeout_at(head_by.into(), self.stream_now(asker, request, waits)).await;
        self.counted(
            sent.unwrap_or_else(|_| Err(OutgoingError::Late("there was no answer in time".to_owned()))),
        )
    }

    fn counted<T>(&self, outcome: Result<T, OutgoingError>) -> Result<T, OutgoingError> {
        let count = |counter| self.cell.counter(counter).fetch_add(1, Ordering::Relaxed);
        count(Counter::OutgoingRequests);
        match &outcome {
            Ok(_) => {}
            Err(OutgoingError::Denied(_) | OutgoingError::Prohibited(_)) => {
                count(Counter::OutgoingDenied);
            }
            Err(_) => {
                count(Counter::OutgoingFailed);
            }
        }
        outcome
    }

    async fn follow(&self, asker: Asker<'_>, dispatch: Dispatch) -> Result<Reply, OutgoingError> {
        let bytes_max = dispatch.response_bytes_max;
        let mut ask = Ask::new(dispatch)?;
        for _ in 0..=REDIRECTS_MAX {
            let going =
                Going { asker, target: &ask.place.target, is_authorized: ask.is_authorized, connect: None };
            let (response, lease) = self.exchange(going, ask.request()?).await?;
            let (head, body) = response.into_parts();
            match ask.next(head.status, &head.headers)? {
                Some(next) => ask = next,
                None => {
                    let body = body::whole(body, lease, bytes_max).await?;
                    return Ok(Reply { status: head.status.as_u16(), headers: listed(&head.headers), body });
                }
            }
        }
        Err(OutgoingError::Lost { redirects_max: REDIRECTS_MAX })
    }

    async fn stream_now(
        &self,
        asker: Asker<'_>,
        mut request: Request<StreamedBody>,
        waits: Waits,
    ) -> Result<Response<StreamedBody>, OutgoingError> {
        let place = Place::parse(&request.uri().to_string())?;
        *request.uri_mut() = place.path_and_query()?;
        request.headers_mut().insert(header::HOST, place.authority()?);
        let going = Going { asker, target: &place.target, is_authorized: false, connect: waits.connect };
        let (response, lease) = self.exchange(going, request).await?;
        Ok(response.map(|body| Streamed::new(body, lease, asker.deadline, waits.piece).boxed_unsync()))
    }

    /// One request and the head of its answer, over a connection that waits or a new one.
    async fn exchange(
        &self,
        going: Going<'_>,
        mut request: Request<StreamedBody>,
    ) -> Result<(Response<Incoming>, Lease), OutgoingError> {
        may_ask(&going.asker.grants.http, going.target).map_err(denied)?;
        let places = self.place(going.asker.module).await?;
        let line = Line { module: going.asker.module.to_owned(), target: going.target.clone() };
        let broken = |error: &dyn Display| OutgoingError::Broken(format!("{}: {error}", going.target));
        // One that waits may have been closed by the other side; then the request comes back unsent.
        while let Some(mut link) = self.pool.take(&line, |address| going.may_reach(address).is_ok()) {
            match link.sender.try_send_request(request).await {
                Ok(response) => return Ok((response, self.lease(link, line, places))),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(error.error())),
                },
            }
        }
        let mut link = self.connect(&going).await?;
        let response = link.sender.send_request(request).await.map_err(|error| broken(&error))?;
        Ok((response, self.lease(link, line, places)))
    }

    fn lease(&self, link: Link, line: Line, places: [OwnedSemaphorePermit; 2]) -> Lease {
        Lease { link, line, pool: self.pool.clone(), _places: places }
    }

    /// Waits until one more request may be under way: the deadline is the caller's.
    async fn place(&self, module: &str) -> Result<[OwnedSemaphorePermit; 2], OutgoingError> {
        let of_module = {
            let mut places = self.module_places.lock();
            let new = || Arc::new(Semaphore::new(MODULE_REQUESTS_MAX));
            Arc::clone(places.entry(module.to_owned()).or_insert_with(new))
        };
        let closed = |_| OutgoingError::Busy("this worker is leaving".to_owned());
        let of_module = of_module.acquire_owned().await.map_err(closed)?;
        let of_worker = Arc::clone(&self.places).acquire_owned().await.map_err(closed)?;
        Ok([of_module, of_worker])
    }

    async fn connect(&self, going: &Going<'_>) -> Result<Link, OutgoingError> {
        let target = going.target;
        let addresses: Vec<IpAddr> = match &target.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                let unknown =
                    |error| OutgoingError::Unknown(format!("{target} cannot be looked up: {error}"));
                self.resolver.resolve(name).await.map_err(unknown)?.into_iter().take(ADDRESSES_MAX).collect()
            }
        };
        // A name that leads to one address that must not be reached is not trusted with the others.
        addresses.iter().try_for_each(|address| going.may_reach(*address))?;
        self.connector.connect(target, &addresses, going.connect).await
    }
}

/// A request that is about to go out.
#[derive(Clone, Copy)]
struct Going<'a> {
    asker: Asker<'a>,
    target: &'a Target,
    /// Whether it has a secret of the host in it.
    is_authorized: bool,
    /// Time for a connection, if the code says so.
    connect: Option<Duration>,
}

impl Going<'_> {
    /// A secret goes over TLS, or to an address that the operator knows by heart.
    fn may_reach(&self, address: IpAddr) -> Result<(), OutgoingError> {
        let (grants, target) = (&self.asker.grants.http, self.target);
        may_reach(grants, target, address).map_err(denied)?;
        if self.is_authorized && !target.is_secure && !is_granted_as_such(grants, target, address) {
            let message = format!("{target} is not secure, expected https: for a request with a secret");
            return Err(OutgoingError::Denied(message));
        }
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what becomes of an error")]
fn denied(denial: Denial) -> OutgoingError {
    match denial {
        Denial::NotGranted(_) => OutgoingError::Denied(denial.to_string()),
        Denial::Special { .. } => OutgoingError::Prohibited(denial.to_string()),
    }
}

fn earlier(deadline: Instant, wait: Option<Duration>) -> Instant {
    wait.and_then(|wait| Instant::now().checked_add(wait)).map_or(deadline, |end| end.min(deadline))
}

fn listed(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}
