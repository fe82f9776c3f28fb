//! What a warm call of a Lambda handler costs, beside a bare POST to a server that echoes, in one run:
//! `cargo bench -p trommel-tests --bench handlers -- [CALLS] [ROUNDS]`.
//!
//! Both ask another process over the loopback interface and wait for its answer. A process that has answered must say so, hear
//! that it was heard, and ask for more, before it can get the next event; the bare server need not. So it is shown twice: with
//! calls that find a process waiting, and with calls on each other's heels. Beside them stands the same function under the least
//! host there can be.
#![allow(clippy::disallowed_methods, reason = "it times real processes")]

mod bare_host;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bare_host::BareHost;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use trommel::adapters::runtime_api::HandlerExecutor;
use trommel::core::id::{Epoch, Generation, PageId, RunId};
use trommel::core::item::Input;
use trommel::core::job::{HandlerSpec, OutputMode};
use trommel::ports::executor::{Call, CallItem, Executor as _, ItemReport, Stop};

const EVENT: &str =
    r#"{"bucket":"photos","key":"2026/11/26/a-name-of-usual-length.jpg","size":123456}"#;

/// Under `lambda_runtime`; gives back what it gets, if that is not the work of the journeys.
const FUNCTION: &str = env!("CARGO_BIN_EXE_lambda-work");

/// Calls before it counts.
const WARM: usize = 200;

/// Calls of one kind in a row: few, so that all meet the same moods of the machine.
const TURN: usize = 100;

/// What lies between two calls.
#[derive(Clone, Copy)]
enum Pace {
    /// Time enough to ask for work.
    Pause(Duration),
    None,
}

#[tokio::main]
async fn main() {
    let number = |at: usize, usual: usize| {
        let said = std::env::args()
            .filter(|said| said.parse::<usize>().is_ok())
            .nth(at);
        said.and_then(|said| said.parse().ok()).unwrap_or(usual)
    };
    let (calls, rounds) = (number(0, 2000), number(1, 5).max(1));
    let mut peers = Peers::start().await;
    for (pace, words) in [
        (
            Pace::Pause(Duration::from_millis(1)),
            "calls that find the process waiting",
        ),
        (Pace::None, "calls on each other's heels"),
    ] {
        println!("{words} (medians of {calls}, by turns of {TURN})");
        let mut ratios = Vec::new();
        for round in 1..=rounds {
            let [post, handler, bare] = peers.compare(calls, pace).await;
            let ratio = handler.as_secs_f64() / post.as_secs_f64();
            println!(
                "  round {round}: bare POST {post:.1?}, handler {handler:.1?}: {ratio:.2} times; the function under a bare host {bare:.1?}"
            );
            ratios.push(ratio);
        }
        ratios.sort_by(f64::total_cmp);
        let ratio = ratios[rounds / 2];
        println!("  median of {rounds} rounds: {ratio:.2} times a bare POST");
    }
    peers.post.end();
}

struct Peers {
    post: Post,
    handler: Handler,
    bare: BareHost,
}

impl Peers {
    /// All have done some calls.
    async fn start() -> Self {
        let mut peers = Self {
            post: Post::start().await,
            handler: Handler::start(),
            bare: BareHost::start(FUNCTION, EVENT),
        };
        peers.compare(WARM, Pace::None).await;
        peers
    }

    async fn compare(&mut self, calls: usize, pace: Pace) -> [Duration; 3] {
        let mut times = [const { Vec::new() }; 3];
        while times[0].len() < calls {
            for _ in 0..TURN {
                let begun = pace.begin().await;
                self.post.call().await;
                times[0].push(begun.elapsed());
            }
            for _ in 0..TURN {
                let call = self.handler.next();
                let begun = pace.begin().await;
                self.handler.call(call).await;
                times[1].push(begun.elapsed());
            }
            for _ in 0..TURN {
                let begun = pace.begin().await;
                self.bare.call();
                times[2].push(begun.elapsed());
            }
        }
        times.map(median)
    }
}

impl Pace {
    async fn begin(self) -> Instant {
        if let Self::Pause(pause) = self {
            tokio::time::sleep(pause).await;
        }
        Instant::now()
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// A server of another process, and a connection to it.
struct Post {
    server: Child,
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Post {
    async fn start() -> Self {
        let mut server = Command::new(env!("CARGO_BIN_EXE_echo-server"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut port = String::new();
        let said = server.stdout.take().expect("piped");
        BufReader::new(said).read_line(&mut port).expect("its port");
        let stream = tokio::net::TcpStream::connect(format!("127.0.0.1:{}", port.trim()))
            .await
            .expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        Self { server, sender }
    }

    async fn call(&mut self) {
        let request = hyper::Request::post("/")
            .header("host", "localhost")
            .body(Full::new(Bytes::from(EVENT)));
        self.sender.ready().await.expect("it stays open");
        let answer = self
            .sender
            .send_request(request.expect("plain"))
            .await
            .expect("an answer");
        let body = answer
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        assert_eq!(body.len(), EVENT.len());
    }

    fn end(mut self) {
        drop(self.server.stdin.take());
        self.server.wait().expect("it ends");
    }
}

/// A Rust function under `lambda_runtime`, which gives back what it gets.
struct Handler {
    executor: HandlerExecutor,
    input: Arc<Input>,
}

impl Handler {
    fn start() -> Self {
        let spec = HandlerSpec {
            argv: vec![FUNCTION.to_owned()],
            cwd: "/".into(),
            environment: std::collections::BTreeMap::new(),
            memory_bytes: None,
        };
        let timeout = Some(Duration::from_mins(1));
        let executor = HandlerExecutor::new(spec, timeout, OutputMode::Keep, None);
        Self {
            executor: executor.expect("just built"),
            input: Arc::new(Input::Value(EVENT.into())),
        }
    }

    fn next(&self) -> Call {
        let item = CallItem {
            id: PageId::new(0, 1).origin(0),
            attempt: 1,
            epoch: Epoch(1),
            generation: Generation(0),
            input: Arc::clone(&self.input),
        };
        Call {
            run: RunId::new("bench"),
            items: vec![item],
            batch: false,
            grace: Duration::ZERO,
        }
    }

    async fn call(&self, call: Call) {
        let report = self.executor.call(call, Stop::new()).await;
        assert!(matches!(report.items[..], [ItemReport::Succeeded(_)]));
        assert_eq!(self.executor.cold_starts().count, 1);
    }
}
