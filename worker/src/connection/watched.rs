//! A client's socket as hyper sees it: it knows when it was last used, ends an idle connection without losing a
//! request that is just arriving, and answers in the host's own words where hyper would answer with none.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use aegis_domain::{Problem, ProblemCode};
use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::{
    link::{Link, Order},
    opening::Opening,
};
use crate::{present::Present, response};

/// Answers up to this size, head and body, are written from one piece of memory.
const TOGETHER_BYTES_MAX: usize = 8 * 1024;

/// A connected socket of either kind.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The socket and what is known about it.
pub(super) struct Watched {
    socket: Socket,
    link: Arc<Link>,
    present: Arc<Present>,
    opening: Opening,
    /// Replaces an empty answer of hyper's: what is still to be written, and how long hyper's was.
    instead: Option<(Bytes, usize)>,
}

impl Watched {
    pub(super) fn new(socket: Socket, link: Arc<Link>, present: Arc<Present>) -> Self {
        Self { socket, link, present, opening: Opening::new(), instead: None }
    }

    /// Tells the client that its request head took too long. Nothing else is being written at that time. If the
    /// socket takes no bytes, the client is not listening either.
    fn say_head_timeout(&mut self, cx: &mut Context<'_>) {
        let host = self.present.look();
        let problem = Problem::new(
            ProblemCode::RequestTimeout,
            format!("the request head did not arrive within {:?}", host.config.limits.header_timeout),
        );
        let bytes = response::raw(&host, &problem);
        let _ = self.socket.poll_write(cx, &bytes);
    }

    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some((bytes, replaced)) = &mut self.instead else { return Poll::Ready(Ok(0)) };
        while !bytes.is_empty() {
            let written = ready!(self.socket.poll_write(cx, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let _ = bytes.split_to(written);
        }
        let replaced = *replaced;
        self.instead = None;
        Poll::Ready(Ok(replaced))
    }

    /// Before a write of `head`: whether hyper refuses a request head by itself, which it does without a body.
    fn notice_refusal(&mut self, head: &[u8]) {
        if self.instead.is_none()
            && self.link.receives_head()
            && let Some(problem) = refusal_of(head, &self.opening)
        {
            self.instead = Some((response::raw(&self.present.look(), &problem), head.len()));
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        let goes_on = self.link.has_begun_a_head();
        self.link.received(bytes);
        if !goes_on {
            self.opening.begin();
        }
        if self.link.has_begun_a_head() {
            self.opening.add(bytes);
        }
    }

    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        match outcome {
            Poll::Ready(Ok(_)) => self.link.sent(),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.link.stall(),
        }
    }
}

/// The problem that an empty answer of hyper's to a head stands for. Answers of the host itself always have a type.
fn refusal_of(answer: &[u8], opening: &Opening) -> Option<Problem> {
    let text = std::str::from_utf8(answer).ok()?;
    let head = text.strip_suffix("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.get(2..5)?;
    if !lines.any(|line| line.eq_ignore_ascii_case("content-length: 0")) {
        return None;
    }
    let (code, detail) = match status {
        "400" => match opening.misplaced() {
            Some(misplaced) => {
                let detail = format!("the request target has {misplaced}");
                return Some(Problem::new(ProblemCode::BadHeader, detail));
            }
            None => (ProblemCode::BadHeader, "the request head is not well-formed HTTP/1.1 (RFC 9112)"),
        },
        "414" => (ProblemCode::UriTooLong, "the request target is too long"),
        "431" => (ProblemCode::HeadersTooLarge, "the request head has too many or too large fields"),
        _ => return None,
    };
    Some(Problem::new(code, detail))
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let before = buffer.filled().len();
        match me.socket.poll_read(cx, buffer) {
            Poll::Ready(outcome) => {
                if buffer.filled().len() > before {
                    me.received(&buffer.filled()[before..]);
                }
                Poll::Ready(outcome)
            }
            Poll::Pending => match me.link.ends_input() {
                None => Poll::Pending,
                Some(order) => {
                    if order == Order::HeadTimeout {
                        me.say_head_timeout(cx);
                    }
                    Poll::Ready(Ok(()))
                }
            },
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        me.notice_refusal(bytes);
        let outcome =
            if me.instead.is_some() { me.poll_instead(cx) } else { me.socket.poll_write(cx, bytes) };
        me.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        if let [only] = slices {
            me.notice_refusal(only);
        }
        let outcome = if me.instead.is_some() {
            me.poll_instead(cx)
        } else {
            me.socket.poll_write_together(cx, slices)
        };
        me.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // sockets have no buffer of their own
    }

    /// Ends the sending half and throws away what the client has sent: closing over unread bytes makes the kernel
    /// reset the connection, and a reset can overtake the answer (RFC 9112 section 9.6). A client that is in the
    /// middle of a body that nobody read is waited for; the sweep bounds the time.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        ready!(me.socket.poll_shutdown(cx))?;
        let lingers = me.link.lingers();
        let mut scrap = [0; 8 * 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut scrap);
            match me.socket.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Pending if lingers => return Poll::Pending,
                Poll::Ready(_) | Poll::Pending => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl Socket {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    /// Writes several slices. Small ones are put together first: copying a few hundred bytes takes a tenth of what the
    /// kernel needs for a list of slices instead of one.
    fn poll_write_together(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        thread_local! {
            static TOGETHER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if length > TOGETHER_BYTES_MAX {
            return self.poll_write_vectored(cx, slices);
        }
        TOGETHER.with_borrow_mut(|together| {
            together.clear();
            for slice in slices {
                together.extend_from_slice(slice);
            }
            self.poll_write(cx, together)
        })
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_without_body_is_taken_for_a_refusal_of_hyper() {
        let code = |answer: &str| refusal_of(answer.as_bytes(), &Opening::new()).map(|problem| problem.code);
        let tail = "connection: close\r\ncontent-length: 0\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
        assert_eq!(code(&format!("HTTP/1.1 400 Bad Request\r\n{tail}")), Some(ProblemCode::BadHeader));
        assert_eq!(
            code(&format!("HTTP/1.1 431 Request Header Fields Too Large\r\n{tail}")),
            Some(ProblemCode::HeadersTooLarge)
        );
        assert_eq!(code(&format!("HTTP/1.0 414 URI Too Long\r\n{tail}")), Some(ProblemCode::UriTooLong));
        assert_eq!(code("HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}"), None);
        assert_eq!(code(&format!("HTTP/1.1 204 No Content\r\n{tail}")), None);
        assert_eq!(code("{\"HTTP/1.1 400\":1}"), None);
    }
}
