//! A seeded HTTP proxy between the AWS SDK and an emulator: it makes requests fail as services and
//! networks do, and counts them by service and operation.
//!
//! What it is for: the SDK's own behaviour (time-outs, retries, broken connections, error codes) cannot be
//! seen at a port. What it is not for: faults of the ports' contracts, such as messages delivered twice;
//! those are the simulator's.
//!
//! Bodies are streamed and never kept, but for the transactions that are refused, whose writes are
//! counted. Headers go through as they came, `Host` and the signature included.

mod chaos;
mod counts;
mod fault;
mod line;
mod operation;
mod reply;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

pub use chaos::{Chaos, Forcing, LATE_MAX, MILLION, Rates};
pub use counts::Counts;
pub use fault::Fault;
pub use operation::Call;

use chaos::{Course, Strike};
use line::{Cutter, Line};
use reply::{Refusal, reply};

/// Connections at one time: more than the pools of a few processes hold. Beyond, they wait to be accepted.
const CONNECTIONS_MAX: usize = 2000;

/// "TransactWriteItems": the aggregate size of a transaction is 4 MB; JSON makes it longer.
const TRANSACTION_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Connections to the emulator that nobody uses are closed before the emulator may think of it.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// After an accept that failed, for want of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// A proxy at work, on a thread of its own: it serves callers that block, too. Dropped, it ends, and its
/// connections with it.
#[derive(Debug)]
pub struct Proxy {
    url: String,
    shared: Arc<Shared>,
    /// Its end ends the thread.
    _stop: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Shared {
    /// The emulator's authority: host and port.
    to: String,
    client: Client<HttpConnector, Incoming>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    chaos: Chaos,
    courses: BTreeMap<Call, Course>,
    counts: Counts,
}

type Body = BoxBody<Bytes, hyper::Error>;

/// The connection is to be reset: what hyper is told instead of an answer.
#[derive(Debug, thiserror::Error)]
#[error("reset on purpose")]
struct Reset;

impl Proxy {
    /// Starts it on a free port of the loopback interface, in front of the emulator at this URL.
    ///
    /// # Errors
    /// The URL is no `http://host:port`, or there is no port or thread to be had.
    pub fn start(to: &str, chaos: Chaos) -> io::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), to, chaos)
    }

    /// The same, at this address.
    ///
    /// # Errors
    /// As for [`Proxy::start`], and where the address is taken or not of the loopback interface.
    pub fn start_at(listen: SocketAddr, to: &str, chaos: Chaos) -> io::Result<Self> {
        if !listen.ip().is_loopback() {
            let why = format!(
                "{listen} is not of the loopback interface: a proxy is for this machine only"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let to = authority(to)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = std::net::TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .build(connector);
        let shared = Arc::new(Shared {
            to,
            client,
            state: Mutex::new(State {
                chaos,
                courses: BTreeMap::new(),
                counts: Counts::default(),
            }),
        });
        let (stop, stopped) = oneshot::channel();
        let serving = shared.clone();
        thread::Builder::new()
            .name("chaos proxy".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        biased;
                        _ = stopped => {}
                        () = serve(listener, serving) => {}
                    }
                });
            })?;
        Ok(Self {
            url,
            shared,
            _stop: stop,
        })
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on faults come from there, and calls are numbered anew. Counts stay.
    pub fn set(&self, chaos: Chaos) {
        let mut state = self.shared.state();
        state.chaos = chaos;
        state.courses.clear();
    }

    /// What went through so far.
    pub fn counts(&self) -> Counts {
        self.shared.state().counts.clone()
    }

    /// The pairs of operation and fault that have not met since the faults were [set](Proxy::set), of the
    /// operations that were called.
    pub fn missing(&self) -> Vec<(Call, Fault)> {
        let state = self.shared.state();
        let pairs = state.courses.iter().flat_map(|(call, course)| {
            let missing = course.missing();
            missing.map(|fault| (call.clone(), fault))
        });
        pairs.collect()
    }
}

/// Host and port of a plain URL.
fn authority(url: &str) -> io::Result<String> {
    let bad = || {
        let why = format!("{url}: use http://host:port");
        io::Error::new(io::ErrorKind::InvalidInput, why)
    };
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let is_plain = uri.scheme_str() == Some("http") && uri.path() == "/";
    let authority = uri.authority().filter(|_| is_plain).ok_or_else(bad)?;
    Ok(authority.to_string())
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = room.clone().acquire_owned().await;
        let permit = permit.expect("nobody closes it");
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            connection(stream, shared).await;
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    // Without it small answers wait for the acknowledgement of those before.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let (line, cutter) = Line::new(stream);
    let service = service_fn(|request| answer(shared.clone(), cutter.clone(), request));
    let served = http1::Builder::new().serve_connection(TokioIo::new(line), service);
    // An error is a connection that we reset, or that its caller gave up: both are daily life here.
    drop(served.await);
}

async fn answer(
    shared: Arc<Shared>,
    cutter: Cutter,
    request: Request<Incoming>,
) -> Result<Response<Body>, Reset> {
    let uri = request.uri();
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    let Some(call) = Call::of(request.method(), path, query, request.headers()) else {
        return shared.forward(request, &cutter).await;
    };
    let Strike { fault, late, draw } = shared.strike(&call);
    let Some(fault) = fault else {
        shared.note_forwarded(&call);
        return shared.forward(request, &cutter).await;
    };
    let refusal = match fault {
        Fault::Slow => {
            shared.note_forwarded(&call);
            let response = shared.forward(request, &cutter).await;
            tokio::time::sleep(late).await;
            return response;
        }
        Fault::RequestLost => return Err(cutter.cut()),
        Fault::ReplyLost => {
            shared.note_forwarded(&call);
            let response = shared.forward(request, &cutter).await?;
            // The service has done all of it once all of its answer is there.
            drain(response.into_body()).await;
            return Err(cutter.cut());
        }
        Fault::Error500 => Refusal::Error500,
        Fault::Error503 => Refusal::Error503,
        Fault::Throttled => {
            let writes = writes_of(&call, request).await;
            return Ok(refused(&call, Refusal::Throttled { draw, writes }));
        }
    };
    drain(request.into_body()).await;
    Ok(refused(&call, refusal))
}

fn refused(call: &Call, refusal: Refusal) -> Response<Body> {
    reply(call, refusal).map(|body| body.map_err(|never| match never {}).boxed())
}

/// Reads a body to its end. One that breaks has ended, too.
async fn drain<B: http_body::Body + Unpin>(mut body: B) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// How many writes a transaction has; of other requests the body is read and forgotten.
async fn writes_of(call: &Call, request: Request<Incoming>) -> usize {
    let body = request.into_body();
    if call.operation != "TransactWriteItems" {
        drain(body).await;
        return 0;
    }
    let Ok(body) = Limited::new(body, TRANSACTION_BYTES_MAX).collect().await else {
        return 1;
    };
    let body: Option<serde_json::Value> = serde_json::from_slice(&body.to_bytes()).ok();
    let writes = body
        .as_ref()
        .and_then(|body| body["TransactItems"].as_array());
    writes.map_or(1, Vec::len)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request that came, and decides what becomes of it.
    fn strike(&self, call: &Call) -> Strike {
        let mut guard = self.state();
        let state = &mut *guard;
        *state.counts.received.entry(call.clone()).or_default() += 1;
        let course = state.courses.entry(call.clone()).or_default();
        let strike = state.chaos.strike(call, course);
        if let Some(fault) = strike.fault {
            *state.counts.fired.entry((call.clone(), fault)).or_default() += 1;
        }
        strike
    }

    fn note_forwarded(&self, call: &Call) {
        let mut state = self.state();
        *state.counts.forwarded.entry(call.clone()).or_default() += 1;
    }

    /// The emulator's answer. Where there is none, the caller gets none.
    async fn forward(
        &self,
        mut request: Request<Incoming>,
        cutter: &Cutter,
    ) -> Result<Response<Body>, Reset> {
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let Ok(uri) = format!("http://{}{path}", self.to).parse() else {
            return Err(cutter.cut());
        };
        *request.uri_mut() = uri;
        strip(request.headers_mut());
        match self.client.request(request).await {
            Ok(mut response) => {
                strip(response.headers_mut());
                Ok(response.map(Incoming::boxed))
            }
            Err(_) => {
                self.state().counts.unanswered += 1;
                Err(cutter.cut())
            }
        }
    }
}

/// What concerns one connection only, and the wish for a `100 Continue`, which hyper has granted.
fn strip(headers: &mut HeaderMap) {
    headers.remove(header::CONNECTION);
    headers.remove(header::EXPECT);
    headers.remove("keep-alive");
}
