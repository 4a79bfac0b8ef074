//! What every room of a worker process can reach.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aegis_config::settings::Config;
use aegis_domain::{
    Problem,
    catalog::{Catalog, Model},
    service::ServiceSpec,
    spec::Datasource,
};
use aegis_ipc::{
    board::{Board, Cell, Counter, ModelCounter, bucket_of},
    deploy::Member,
    tally::Tally,
};
use http::{HeaderValue, StatusCode};
use uuid::Uuid;

use crate::{
    acceptor::{Doorbell, Seats},
    access::Gate,
    connection::Clock,
    data::{Data, ModelTable},
    drain::Leaving,
    events::Hub,
    execute::Engine,
    generation::Offer,
    overload::Load,
    reporting::Supervisor,
    response::is_refusal,
    route::Routes,
    throttle::Throttle,
};

/// What a request is answered with: one generation, on the premises of the process. Nothing in it changes; the next
/// generation is another host (see [`crate::present`]).
pub(crate) struct Host {
    pub(crate) config: Config,
    /// Digest of the generation, hexadecimal.
    pub(crate) digest: String,
    pub(crate) catalog: Arc<Catalog>,
    /// In the order of the generation.
    pub(crate) services: Vec<ServiceSpec>,
    /// The modules that the generation consists of.
    pub(crate) members: Vec<Member>,
    pub(crate) routes: Routes,
    /// Asks who calls; none while authentication is off.
    pub(crate) gate: Option<Gate>,
    pub(crate) engine: Engine,
    /// In the order of the catalog.
    pub(crate) tables: Vec<Arc<ModelTable>>,
    pub(crate) identity: Identity,
    premises: Arc<Premises>,
}

/// What stays when one generation follows another in the same process: whoever lives longer than a request holds this, and
/// no host.
pub(crate) struct Premises {
    pub(crate) board: Board,
    pub(crate) cell: Cell,
    pub(crate) clock: Arc<Clock>,
    pub(crate) seats: Arc<Seats>,
    pub(crate) load: Load,
    /// Counts the requests of clients; none while there is no limit.
    pub(crate) throttle: Option<Throttle>,
    pub(crate) leaving: Leaving,
    pub(crate) supervisor: Supervisor,
    pub(crate) events: Hub,
}

/// A host is where its premises are.
impl Deref for Host {
    type Target = Premises;

    fn deref(&self) -> &Premises {
        &self.premises
    }
}

/// Who answers.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) generation: u64,
    /// Unique per worker process: half of the identity of its writes.
    pub(crate) incarnation: u64,
    /// `slot.generation`, the value of `Aegis-Worker`.
    pub(crate) header: HeaderValue,
    slot: u32,
    /// What the request ids of this generation begin with.
    prefix: String,
    /// Those of all generations of the process.
    requests: Arc<AtomicU64>,
}

impl Identity {
    pub(crate) fn new(slot: u32, generation: u64) -> Self {
        Self::of(slot, generation, Uuid::new_v4().as_u64_pair().1, Arc::default())
    }

    /// The same process with another generation.
    fn next(&self, generation: u64) -> Self {
        Self::of(self.slot, generation, self.incarnation, Arc::clone(&self.requests))
    }

    fn of(slot: u32, generation: u64, incarnation: u64, requests: Arc<AtomicU64>) -> Self {
        // Leaked, a few bytes per generation: a static value is cloned without counting.
        let header = HeaderValue::from_static(Box::leak(format!("{slot}.{generation}").into_boxed_str()));
        let prefix = format!("{slot}-{generation}-{:08x}-", incarnation >> 32);
        Self { generation, incarnation, header, slot, prefix, requests }
    }

    /// A request id that no other request of this machine has: no random number is drawn per request.
    pub(crate) fn fresh_request_id(&self) -> HeaderValue {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(number).as_bytes();
        let prefix = self.prefix.as_bytes();
        let mut bytes = [0; 80];
        bytes[..prefix.len()].copy_from_slice(prefix);
        bytes[prefix.len()..prefix.len() + digits.len()].copy_from_slice(digits);
        HeaderValue::from_bytes(&bytes[..prefix.len() + digits.len()])
            .expect("digits, letters and dashes are valid in a header")
    }
}

/// What a host is made of.
pub(crate) struct Founding {
    pub(crate) offer: Offer,
    pub(crate) data: Data,
    pub(crate) board: Board,
    pub(crate) cell: Cell,
    pub(crate) tally: Tally,
    pub(crate) identity: Identity,
    pub(crate) supervisor: Supervisor,
}

impl Premises {
    /// Begins to drain, or hastens a drain that has begun.
    pub(crate) fn leave(&self, deadline: Option<Duration>, spread: Duration) {
        self.leaving.begin(self.clock.advance(), deadline, spread, self.seats.open());
    }

    /// The same where no other worker follows: all clients are told at once.
    pub(crate) fn leave_to_nobody(&self, deadline: Option<Duration>, spread: Duration) {
        self.leaving.begin(self.clock.advance(), deadline, spread, 0);
    }
}

impl Host {
    /// A host that serves nobody yet. Room that is made for connections is announced at `doorbell`.
    pub(crate) fn new(founding: Founding, doorbell: Arc<Doorbell>) -> Arc<Self> {
        let Founding { offer, data, board, cell, tally, identity, supervisor } = founding;
        let limits = &offer.config.limits;
        let premises = Premises {
            board,
            cell,
            clock: Arc::new(Clock::new()),
            seats: Seats::new(cell, u64::from(limits.connections_max), doorbell),
            load: Load::new(cell, limits),
            throttle: Throttle::new(limits, tally, cell),
            leaving: Leaving::default(),
            supervisor,
            events: Hub::new(),
        };
        let engine = Engine::new(&offer.config, data);
        Self::of(offer, engine, identity, Arc::new(premises))
    }

    /// A host on the same premises, with the same data, that serves another generation. Its models have to be the same
    /// but for their code.
    pub(crate) fn next(&self, offer: Offer, generation: u64) -> Arc<Self> {
        let engine = self.engine.next(&offer.config);
        Self::of(offer, engine, self.identity.next(generation), Arc::clone(&self.premises))
    }

    fn of(offer: Offer, engine: Engine, identity: Identity, premises: Arc<Premises>) -> Arc<Self> {
        let Offer { config, digest, catalog, services, members, gate, .. } = offer;
        let table = |model: &Arc<Model>| {
            let table = engine.data().table(model.name()).expect("the data is made for the same models");
            Arc::clone(table)
        };
        Arc::new(Self {
            tables: catalog.models().iter().map(table).collect(),
            digest,
            routes: Routes::new(&config.api_root, Arc::clone(&catalog), &services),
            services,
            members,
            gate,
            engine,
            identity,
            premises,
            catalog,
            config,
        })
    }

    /// What stays when the generation goes.
    pub(crate) fn premises(&self) -> &Arc<Premises> {
        &self.premises
    }

    /// Names of the models whose documents, and changes, are only in the memory of the store.
    pub(crate) fn models_in_memory(&self) -> impl Iterator<Item = &str> {
        let is_default = self.config.datasource == aegis_config::settings::Datasource::Memory;
        let models = self.catalog.models().iter().filter(move |model| match model.spec().datasource {
            Some(datasource) => datasource == Datasource::Memory,
            None => is_default,
        });
        models.map(|model| model.name())
    }

    /// Log position that an answer without data reflects.
    pub(crate) fn sequence(&self) -> u64 {
        self.engine.data().applied().unwrap_or(0)
    }

    /// Counts a request that took some time to answer.
    pub(crate) fn count(&self, status: StatusCode, begun: Instant, body_bytes: u64) {
        let microseconds = microseconds(begun.elapsed());
        self.cell.counter(Counter::RequestMicroseconds).fetch_add(microseconds, Ordering::Relaxed);
        self.count_answer(status, bucket_of(microseconds), body_bytes);
    }

    /// Counts a request that was answered at once: within the first bucket, in less than a microsecond or two. Two
    /// looks at a clock would take a noticeable part of that.
    pub(crate) fn count_at_once(&self, status: StatusCode, body_bytes: u64) {
        self.count_answer(status, 0, body_bytes);
    }

    fn count_answer(&self, status: StatusCode, bucket: usize, body_bytes: u64) {
        let counter = match status.as_u16() {
            100..200 => Counter::Responses1xx,
            200..300 => Counter::Responses2xx,
            300..400 => Counter::Responses3xx,
            400..500 => Counter::Responses4xx,
            _ => Counter::Responses5xx,
        };
        self.cell.counter(counter).fetch_add(1, Ordering::Relaxed);
        self.cell.bucket(bucket).fetch_add(1, Ordering::Relaxed);
        self.cell.counter(Counter::BytesOut).fetch_add(body_bytes, Ordering::Relaxed);
    }

    /// Counts a request to a model that was refused before it reached the engine, which counts all others.
    pub(crate) fn count_refused(&self, model: &Model, problem: &Problem) {
        if is_refusal(problem.code)
            && let Some(table) = self.engine.data().table(model.name())
        {
            table.count(self.cell, ModelCounter::Refused, 1);
        }
    }
}

/// A time as logs and counters have it.
pub(crate) fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_differ_and_name_the_process() {
        let identity = Identity::new(u32::MAX, u64::MAX);
        identity.requests.store(u64::MAX - 1, Ordering::Relaxed);
        let (first, second) = (identity.fresh_request_id(), identity.fresh_request_id());
        assert_ne!(first, second);
        let (later, back) = (identity.next(7), identity.next(7).next(u64::MAX));
        assert_ne!(later.fresh_request_id(), back.fresh_request_id());
        assert_eq!(back.header, identity.header);
        assert_ne!(back.fresh_request_id(), first, "not even in a generation that comes back");
        let expected = format!("{}-{}-{:08x}-", u32::MAX, u64::MAX, identity.incarnation >> 32);
        assert!(first.to_str().unwrap().starts_with(&expected));
    }
}
