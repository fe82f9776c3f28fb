//! The Lambda Runtime API of one process, on a port of its own of the loopback interface.
//!
//! Version 2018-06-01 ("Using the Lambda runtime API for custom runtimes"), and of the Extensions API what clients that end
//! gracefully ask for at their start. Which process speaks is known by the port.

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::desk::{Desk, InitError, NotAsked, Said, Task};
use crate::ports::executor::OUTPUT_BYTES_MAX;

const RUNTIME: &str = "/2018-06-01/runtime/";
const EXTENSION: &str = "/2020-01-01/extension/";

const REQUEST_ID: HeaderName = HeaderName::from_static("lambda-runtime-aws-request-id");
const DEADLINE: HeaderName = HeaderName::from_static("lambda-runtime-deadline-ms");
const FUNCTION_ARN: HeaderName = HeaderName::from_static("lambda-runtime-invoked-function-arn");
const TRACE_ID: HeaderName = HeaderName::from_static("lambda-runtime-trace-id");
const CLIENT_CONTEXT: HeaderName = HeaderName::from_static("lambda-runtime-client-context");
const ERROR_TYPE: &str = "lambda-runtime-function-error-type";
const ERROR_BODY: &str = "lambda-runtime-function-error-body";

/// Connections of one process at one time: a runtime needs one or two, and its children none.
const CONNECTIONS_MAX: usize = 16;

/// The form of a trace's name; nobody follows it here.
const NO_TRACE: &str = "Root=1-00000000-000000000000000000000000;Sampled=0";

/// An open port. Closed when dropped, with all its connections.
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    _serving: AbortOnDrop,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a function is told of itself.
pub(super) fn arn(function: &str) -> String {
    format!("arn:aws:lambda:local:000000000000:function:{function}")
}

impl Endpoint {
    /// Opens one.
    ///
    /// # Errors
    /// There is no free port.
    pub(super) async fn open(desk: Arc<Desk>, arn: Arc<str>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(serve(listener, desk, arn));
        Ok(Self {
            address,
            _serving: AbortOnDrop(serving),
        })
    }
}

async fn serve(listener: TcpListener, desk: Arc<Desk>, arn: Arc<str>) {
    // Connections end with it: a JoinSet aborts what it holds.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&desk), Arc::clone(&arn)));
                }
                Err(error) => tracing::debug!(%error, "a handler could not connect"),
            },
        }
    }
}

async fn connection(stream: TcpStream, desk: Arc<Desk>, arn: Arc<str>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection stays slow");
    }
    let service = service_fn(|request| {
        let (desk, arn) = (Arc::clone(&desk), Arc::clone(&arn));
        async move { Ok::<_, Infallible>(answer(request, &desk, &arn).await) }
    });
    let mut serving = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    let served = poll_fn(|context| {
        let served = serving.as_mut().poll(context);
        // What it had to write is written.
        desk.tell();
        served
    });
    let served = served.await;
    if let Err(error) = served {
        tracing::trace!(%error, "a connection ended");
    }
}

async fn answer(request: Request<Incoming>, desk: &Arc<Desk>, arn: &str) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let is_post = request.method() == Method::POST;
    if let Some(rest) = path.strip_prefix(EXTENSION) {
        return extension(rest).await;
    }
    let Some(rest) = path.strip_prefix(RUNTIME) else {
        return refused(StatusCode::NOT_FOUND, "NotFound", "there is no such path");
    };
    if rest == "invocation/next" && !is_post {
        let task = desk.next().await;
        return event(task, arn);
    }
    if rest == "init/error" && is_post {
        let kind = error_type(request.headers());
        let body = body_of(request)
            .await
            .map(|(body, _)| body)
            .unwrap_or_default();
        desk.cannot_start(InitError { body, kind });
        return accepted();
    }
    let named = rest
        .strip_prefix("invocation/")
        .and_then(|rest| rest.split_once('/'));
    let done = match named {
        Some((id, "response")) if is_post => respond(id, request, desk).await,
        Some((id, "error")) if is_post => fail(id, request, desk).await,
        Some(_) | None => {
            return refused(StatusCode::NOT_FOUND, "NotFound", "there is no such path");
        }
    };
    match done {
        Ok(response) => response,
        Err(NotAsked) => refused(
            StatusCode::BAD_REQUEST,
            "InvalidRequestID",
            "this request is not under way",
        ),
    }
}

async fn respond(
    id: &str,
    request: Request<Incoming>,
    desk: &Desk,
) -> Result<Response<Full<Bytes>>, NotAsked> {
    match body_of(request).await {
        Ok((body, trailers)) => {
            desk.said(id, answer_or_error(body, trailers.as_ref(), desk))?;
            Ok(accepted())
        }
        Err(Unread::TooLong) => {
            desk.said(id, Said::TooLong)?;
            let text = "the answer is too long";
            Ok(refused(
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestEntityTooLarge",
                text,
            ))
        }
        // Its process is about to show why.
        Err(Unread::Broken) => Ok(refused(
            StatusCode::BAD_REQUEST,
            "Broken",
            "the body broke off",
        )),
    }
}

/// A function that streams says at the end whether it failed on its way ("Lambda response streaming").
fn answer_or_error(body: Bytes, trailers: Option<&HeaderMap>, desk: &Desk) -> Said {
    let Some(kind) = trailers.and_then(error_type) else {
        return Said::Answer(body);
    };
    let body = trailers
        .and_then(|trailers| trailers.get(ERROR_BODY))
        .map(|value| decoded(value.as_bytes()))
        .unwrap_or_default();
    Said::Error {
        body,
        kind: Some(kind),
        log: desk.tail.since_begun(),
    }
}

fn decoded(base64: &[u8]) -> Bytes {
    use base64::Engine as _;
    match base64::engine::general_purpose::STANDARD.decode(base64) {
        Ok(bytes) => bytes.into(),
        Err(_) => Bytes::copy_from_slice(base64),
    }
}

async fn fail(
    id: &str,
    request: Request<Incoming>,
    desk: &Desk,
) -> Result<Response<Full<Bytes>>, NotAsked> {
    let kind = error_type(request.headers());
    let body = body_of(request)
        .await
        .map(|(body, _)| body)
        .unwrap_or_default();
    let log = desk.tail.since_begun();
    desk.said(id, Said::Error { body, kind, log })?;
    Ok(accepted())
}

fn error_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(ERROR_TYPE)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// A body that was not read whole.
enum Unread {
    TooLong,
    Broken,
}

async fn body_of(request: Request<Incoming>) -> Result<(Bytes, Option<HeaderMap>), Unread> {
    match Limited::new(request.into_body(), OUTPUT_BYTES_MAX)
        .collect()
        .await
    {
        Ok(collected) => {
            let trailers = collected.trailers().cloned();
            Ok((collected.to_bytes(), trailers))
        }
        Err(error) if error.is::<LengthLimitError>() => Err(Unread::TooLong),
        Err(_) => Err(Unread::Broken),
    }
}

fn event(task: Task, arn: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(task.event));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(TRACE_ID, HeaderValue::from_static(NO_TRACE));
    headers.insert(DEADLINE, HeaderValue::from(task.deadline_ms as u64));
    for (name, value) in [
        (REQUEST_ID, task.id.as_str()),
        (FUNCTION_ARN, arn),
        (CLIENT_CONTEXT, &task.context),
    ] {
        // JSON escapes what a header may not hold, but for characters beyond ASCII, which it may.
        match HeaderValue::from_bytes(value.as_bytes()) {
            Ok(value) => {
                headers.insert(name, value);
            }
            Err(error) => tracing::debug!(%error, %name, "a header is left out"),
        }
    }
    response
}

/// Clients that want to hear of their end register as an extension, and wait for an event that never comes: here a process
/// ends by a signal.
async fn extension(rest: &str) -> Response<Full<Bytes>> {
    if rest != "register" {
        return std::future::pending().await;
    }
    let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
    let name = HeaderName::from_static("lambda-extension-identifier");
    response.headers_mut().insert(
        name,
        HeaderValue::from_static("00000000-0000-4000-8000-000000000000"),
    );
    response
}

fn accepted() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"{\"status\":\"OK\"}\n")));
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

fn refused(status: StatusCode, kind: &str, text: &str) -> Response<Full<Bytes>> {
    let body = format!("{{\"errorType\":\"{kind}\",\"errorMessage\":\"{text}\"}}\n");
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}
