//! What `wasi:http` keeps in an instance: its bounds, and that nothing goes out.

use std::future::Future;

use http::{HeaderName, Request, Response, header};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks,
    WasiHttpView,
};

use crate::state::State;

/// Bytes that a guest writes to a body at once; two pieces wait for the client at most.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one set of header fields in memory.
const FIELDS_BYTES_MAX: usize = 128 * 1024;

/// The side of the host.
#[derive(Debug)]
pub(crate) struct Http {
    context: WasiHttpCtx,
    hooks: Hooks,
}

/// What is allowed.
#[derive(Debug)]
struct Hooks;

impl Default for Http {
    fn default() -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(FIELDS_BYTES_MAX);
        Self { context, hooks: Hooks }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.http.hooks, table: &mut self.table, ctx: &mut self.http.context }
    }
}

/// Why the code did not get what it asked another host for.
type Told = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Hooks {
    fn forbidden_header_filter(&mut self) -> wasmtime_wasi_http::ForbiddenHeaderFilter {
        std::sync::Arc::new(is_forbidden)
    }

    /// Nothing grants it yet.
    fn send_request(
        &mut self,
        _: Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Told,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Told), Error>> + Send> {
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }
}

/// Headers that are between two neighbours: they neither reach the code nor come from it.
fn is_forbidden(name: &HeaderName) -> bool {
    DEFAULT_FORBIDDEN_HEADERS.contains(name) || *name == header::TE
}
