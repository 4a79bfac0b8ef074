//! Whole requests to other systems.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use wasmtime::component::Resource;

use super::{fault, secrets::Secret};
use crate::{
    call::{Refusal, TimeIsUp},
    contract::{
        Fault, FaultCode,
        base::aegis::module::http::{self, Request, Response},
        types::Header,
    },
    outgoing::{Credential, Dispatch, Reply},
    services::{Asker, Services},
    state::State,
};

/// Most requests that are sent by one call of `send-all`.
const SEND_ALL_MAX: usize = 64;
/// Of these, how many are under way at a time.
const AT_ONCE_MAX: usize = 8;

/// What one request comes to.
type Sent = Result<Response, Fault>;

impl http::Host for State {
    async fn send(&mut self, request: Request) -> wasmtime::Result<Sent> {
        let bytes_max = self.owner.limits.payload_bytes_max;
        let sent = sent(&*self.services, self.asker(), dispatch(request, bytes_max, None)).await;
        self.in_time()?;
        Ok(sent)
    }

    async fn send_authorized(
        &mut self,
        request: Request,
        scheme: String,
        secret: Resource<Secret>,
    ) -> wasmtime::Result<Sent> {
        let credential = Credential { scheme, secret: self.table.get(&secret)?.text.clone() };
        let bytes_max = self.owner.limits.payload_bytes_max;
        let sent = sent(&*self.services, self.asker(), dispatch(request, bytes_max, Some(credential))).await;
        self.in_time()?;
        Ok(sent)
    }

    /// All answers together are handed over at once, so they share the room for one.
    async fn send_all(&mut self, requests: Vec<Request>) -> wasmtime::Result<Vec<Sent>> {
        let count = requests.len();
        if count > SEND_ALL_MAX {
            let message = format!("found {count} requests, expected at most {SEND_ALL_MAX}");
            return Ok((0..count).map(|_| Err(fault(FaultCode::TooLarge, message.clone()))).collect());
        }
        let bytes_max = self.owner.limits.payload_bytes_max / (count as u64).max(1);
        let (services, asker) = (&*self.services, self.asker());
        let work =
            requests.into_iter().map(|request| sent(services, asker, dispatch(request, bytes_max, None)));
        let sent = all(work.collect(), AT_ONCE_MAX).await;
        self.in_time()?;
        Ok(sent)
    }
}

impl State {
    /// A call whose time is up ends here, whatever came of the request: its instance is not used again.
    fn in_time(&self) -> wasmtime::Result<()> {
        if self.budget.is_over() { Err(TimeIsUp.into()) } else { Ok(()) }
    }
}

async fn sent(services: &dyn Services, asker: Asker<'_>, dispatch: Dispatch) -> Sent {
    let sent = services.send(asker, dispatch).await;
    sent.map(Into::into).map_err(|error| Refusal::from(error).into())
}

fn dispatch(request: Request, bytes_max: u64, credential: Option<Credential>) -> Dispatch {
    let Request { method, url, headers, body, timeout_ms, max_response_bytes } = request;
    Dispatch {
        method,
        url,
        headers: headers.into_iter().map(|Header { name, value }| (name, value)).collect(),
        body: body.into(),
        timeout: timeout_ms.map(|milliseconds| Duration::from_millis(milliseconds.into())),
        response_bytes_max: max_response_bytes.map_or(bytes_max, |wanted| bytes_max.min(wanted.into())),
        credential,
    }
}

impl From<Reply> for Response {
    fn from(reply: Reply) -> Self {
        let headers = reply.headers.into_iter().map(|(name, value)| Header { name, value });
        Self { status: reply.status, headers: headers.collect(), body: reply.body.into() }
    }
}

/// Carries all out, at most `at_once_max` at a time; the results are in the order of what was asked.
async fn all<F: Future>(work: Vec<F>, at_once_max: usize) -> Vec<F::Output> {
    let mut results: Vec<Option<F::Output>> = work.iter().map(|_| None).collect();
    let mut waiting = work.into_iter().enumerate();
    let mut running: Vec<(usize, Pin<Box<F>>)> = Vec::with_capacity(at_once_max);
    poll_fn(|context| {
        loop {
            let free = at_once_max.saturating_sub(running.len());
            running.extend(waiting.by_ref().take(free).map(|(number, one)| (number, Box::pin(one))));
            let before = running.len();
            running.retain_mut(|(number, one)| match one.as_mut().poll(context) {
                Poll::Ready(result) => {
                    results[*number] = Some(result);
                    false
                }
                Poll::Pending => true,
            });
            match (running.len(), before) {
                (0, 0) => return Poll::Ready(()),
                (now, before) if now == before => return Poll::Pending,
                _ => {}
            }
        }
    })
    .await;
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn some_are_carried_out_at_a_time_and_answered_in_their_order() {
        let (running, most) = (Cell::new(0), Cell::new(0));
        let one = |number: usize| {
            let (running, most) = (&running, &most);
            async move {
                running.set(running.get() + 1);
                most.set(most.get().max(running.get()));
                for _ in 0..(10 - number) {
                    tokio::task::yield_now().await;
                }
                running.set(running.get() - 1);
                number
            }
        };
        let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let numbers = tokio.block_on(all((0..10).map(one).collect(), 3));
        assert_eq!(numbers, (0..10).collect::<Vec<_>>());
        assert_eq!(most.get(), 3);
        assert!(tokio.block_on(all(Vec::<std::future::Ready<()>>::new(), 3)).is_empty());
    }
}
