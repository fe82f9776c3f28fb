//! `/healthz` of a process that works for long: whether its session lives, for whoever starts it anew if not.
//!
//! It tells of this process alone, and lets nobody change anything. How runs stand is `status`'s to say.

#![expect(
    clippy::disallowed_methods,
    reason = "connections are of the real machine and its time, and no run depends on them"
)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::cli::args::Global;
use crate::cli::error::{CliError, ErrorCode};
use crate::cli::screen::tell;
use crate::runner::AtWork;

/// Connections at one time: those who ask are few, and are answered at once.
const CONNECTIONS_MAX: usize = 16;

/// Who connects and asks nothing is sent away after this.
const CONNECTION_MAX: Duration = Duration::from_secs(10);

/// Before the next is let in where one could not be: without free files that would else be asked without end.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// How a process is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    /// It has no session yet, or is between two.
    Starting,
    /// It works.
    Ok,
    /// It was asked to leave, and finishes what runs.
    Draining,
    /// Its ledger has not heard of it for so long that its leases are lost.
    Silent,
}

impl Word {
    /// Whether there is nothing to be done about it.
    fn is_well(self) -> bool {
        match self {
            Self::Ok | Self::Draining => true,
            Self::Starting | Self::Silent => false,
        }
    }
}

/// What is answered.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    status: Word,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_since_beat: Option<u64>,
    calls_running: u32,
}

impl Health {
    fn of(at_work: &AtWork) -> Self {
        let Some(env) = at_work.session() else {
            return Self {
                status: Word::Starting,
                session: None,
                seconds_since_beat: None,
                calls_running: 0,
            };
        };
        let silent = env.silent_for();
        let status = if env.kill.is_cancelled() || silent >= env.settings.silent_max() {
            Word::Silent
        } else if env.drain.is_cancelled() {
            Word::Draining
        } else {
            Word::Ok
        };
        Self {
            status,
            session: Some(env.ledger.session().to_string()),
            seconds_since_beat: Some(silent.as_secs()),
            calls_running: env.permits.used(),
        }
    }
}

/// Answers at this address until it is dropped.
pub(super) struct Endpoint {
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Opens the endpoint, if one was asked for, and says where it is.
pub(super) async fn open(
    address: Option<SocketAddr>,
    at_work: &Arc<AtWork>,
    global: &Global,
) -> Result<Option<Endpoint>, CliError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let failed = |error: std::io::Error| {
        let problem = format!("no health can be told at {address}");
        CliError::new(ErrorCode::BadArgument, problem)
            .because(error)
            .hinted(
                "name an address and port that are free: --health 127.0.0.1:8080; port 0 takes any",
            )
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    if !global.quiet {
        tell(&format!("health at http://{address}/healthz\n"));
    }
    let serving = tokio::spawn(serve(listener, at_work.clone()));
    Ok(Some(Endpoint { serving }))
}

async fn serve(listener: TcpListener, at_work: Arc<AtWork>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(tokio::time::timeout(CONNECTION_MAX, connection(stream, at_work.clone())));
                }
                Err(error) => {
                    tracing::debug!(%error, "nobody could connect to ask for health");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            },
        }
    }
}

async fn connection(stream: TcpStream, at_work: Arc<AtWork>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), &at_work);
        async move { Ok::<_, Infallible>(answer) }
    });
    // One answer a connection: probes open a new one each time.
    let mut http = http1::Builder::new();
    let served = http
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::trace!(%error, "a connection ended");
    }
}

fn answer(method: &Method, path: &str, at_work: &AtWork) -> Response<Full<Bytes>> {
    let (status, text) = if path != "/healthz" {
        (
            StatusCode::NOT_FOUND,
            r#"{"error":"ask for /healthz"}"#.to_owned(),
        )
    } else if method != Method::GET && method != Method::HEAD {
        (
            StatusCode::METHOD_NOT_ALLOWED,
            r#"{"error":"only GET"}"#.to_owned(),
        )
    } else {
        let health = Health::of(at_work);
        let status = if health.status.is_well() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (status, serde_json::to_string(&health).unwrap_or_default())
    };
    let mut response = Response::new(Full::new(Bytes::from(text + "\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_a_session_is_not_well_yet() {
        let health = Health::of(&AtWork::default());
        assert_eq!(health.status, Word::Starting);
        assert!(!health.status.is_well());
        let response = answer(&Method::GET, "/healthz", &AtWork::default());
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn who_drains_is_well_and_who_is_silent_is_not() {
        assert!(Word::Draining.is_well() && Word::Ok.is_well());
        assert!(!Word::Silent.is_well());
    }

    #[test]
    fn nothing_else_is_told_and_nothing_can_be_changed() {
        let at_work = AtWork::default();
        let other = answer(&Method::GET, "/", &at_work);
        assert_eq!(other.status(), StatusCode::NOT_FOUND);
        let post = answer(&Method::POST, "/healthz", &at_work);
        assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
