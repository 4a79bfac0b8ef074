//! Connections to other systems: made to an address that was checked, and kept for a while.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use aegis_domain::outgoing::{Host, Target};
use aegis_wasm::{OutgoingError, StreamedBody};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::OnceCell,
    task::AbortHandle,
};
use tokio_rustls::TlsConnector;

/// Time to connect to one address, TLS included.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Bytes of the head of an answer.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Header fields of an answer.
const HEADERS_MAX: usize = 100;

/// A connection. It ends when this is dropped, whatever is under way on it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) sender: SendRequest<StreamedBody>,
    /// Whom it leads to.
    pub(super) address: IpAddr,
    driver: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Makes connections.
#[derive(Debug, Default)]
pub(super) struct Connector {
    /// Whom to trust, read from the system when it is needed for the first time.
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Connector {
    /// Trusts whom it is told to.
    #[cfg(test)]
    pub(super) fn trusting(config: ClientConfig) -> Self {
        Self { tls: OnceCell::new_with(Some(Arc::new(config))) }
    }

    /// A connection to the first of these addresses that accepts one.
    pub(super) async fn connect(
        &self,
        target: &Target,
        addresses: &[IpAddr],
        wait: Option<Duration>,
    ) -> Result<Link, OutgoingError> {
        let wait = wait.map_or(CONNECT_TIME, |wait| wait.min(CONNECT_TIME));
        let mut failure = OutgoingError::Unknown(format!("{target} has no address"));
        for address in addresses {
            match tokio::time::timeout(wait, self.connect_to(target, *address)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) => failure = error,
                Err(_) => {
                    failure =
                        OutgoingError::Unreachable(format!("{target} did not accept a connection in time"))
                }
            }
        }
        Err(failure)
    }

    async fn connect_to(&self, target: &Target, address: IpAddr) -> Result<Link, OutgoingError> {
        let unreachable = |error: std::io::Error| {
            OutgoingError::Unreachable(format!("{target} cannot be connected to: {error}"))
        };
        let stream = TcpStream::connect(SocketAddr::new(address, target.port)).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        if !target.is_secure {
            return start(target, address, stream).await;
        }
        let untrusted = |error: String| OutgoingError::Untrusted(format!("{target}: {error}"));
        let name = match &target.host {
            Host::Name(name) => {
                ServerName::try_from(name.clone()).map_err(|error| untrusted(error.to_string()))?
            }
            Host::Address(address) => ServerName::from(*address),
        };
        let tls = self.tls.get_or_try_init(system_trust).await.map_err(untrusted)?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
        start(target, address, stream.map_err(|error| untrusted(error.to_string()))?).await
    }
}

/// Whom programs of this machine trust.
async fn system_trust() -> Result<Arc<ClientConfig>, String> {
    let read = tokio::task::spawn_blocking(|| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_platform_verifier()?
            .with_no_client_auth();
        Ok(Arc::new(config))
    });
    let failed = |error: rustls::Error| format!("the system's certificates cannot be read: {error}");
    read.await.map_err(|error| error.to_string())?.map_err(failed)
}

async fn start<S>(target: &Target, address: IpAddr, stream: S) -> Result<Link, OutgoingError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::Builder::new()
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(2 * HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream));
    let (sender, connection) =
        handshake.await.map_err(|error| OutgoingError::Broken(format!("{target}: {error}")))?;
    let driver = tokio::spawn(async move {
        // Whoever waits for an answer learns what went wrong; an idle connection may end as it likes.
        let _ = connection.await;
    });
    Ok(Link { sender, address, driver: driver.abort_handle() })
}
