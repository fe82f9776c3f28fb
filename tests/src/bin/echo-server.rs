//! The peer of the handlers' benchmark: answers each POST with its body. Prints its port, ends with its standard input.

#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own, which knows no runtime of ours"
)]

use std::convert::Infallible;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?.port());
    let mut stdin = tokio::io::stdin();
    let mut nothing = [0; 16];
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                tokio::spawn(serve(accepted?.0));
            }
            read = stdin.read(&mut nothing) => if read? == 0 {
                return Ok(());
            },
        }
    }
}

async fn serve(stream: TcpStream) {
    let echo = |request: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new(request.into_body()))
    };
    // Whoever hangs up has what he came for.
    let _ = stream.set_nodelay(true);
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(echo))
        .await;
}
