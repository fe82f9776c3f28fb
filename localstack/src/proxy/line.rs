//! A connection that can be cut: reset, as by a network that breaks, instead of closed in good order.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Reset;

/// A client's connection.
#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    cut: Arc<AtomicBool>,
}

/// Cuts it.
#[derive(Clone, Debug)]
pub(super) struct Cutter(Arc<AtomicBool>);

impl Cutter {
    /// Once the connection is let go, it is reset.
    pub(super) fn cut(&self) -> Reset {
        self.0.store(true, Ordering::Relaxed);
        Reset
    }
}

impl Line {
    pub(super) fn new(stream: TcpStream) -> (Self, Cutter) {
        let cut = Arc::new(AtomicBool::new(false));
        let cutter = Cutter(cut.clone());
        (Self { stream, cut }, cutter)
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.is_cut() {
            // Closed with this option, TCP resets. Where it cannot be set, a plain close has to do.
            self.stream.set_zero_linger().ok();
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut() {
            // No good-bye first.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
