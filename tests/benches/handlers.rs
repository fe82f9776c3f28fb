//! What a warm call of a Lambda handler costs, beside a bare POST to a server that echoes, in one run:
//! `cargo bench -p trommel-tests --bench handlers -- [CALLS] [ROUNDS]`.
//!
//! Both ask another process over the loopback interface and wait for its answer, one call after the other.
#![allow(clippy::disallowed_methods, reason = "it times real processes")]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// Calls before it counts.
const WARM: usize = 200;

#[tokio::main]
async fn main() {
    let number = |at: usize, usual: usize| {
        let said = std::env::args()
            .filter(|said| said.parse::<usize>().is_ok())
            .nth(at);
        said.and_then(|said| said.parse().ok()).unwrap_or(usual)
    };
    let (calls, rounds) = (number(0, 5000), number(1, 5));
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let (bare, handler) = (posts(calls).await, invocations(calls).await);
        let ratio = handler.as_secs_f64() / bare.as_secs_f64();
        println!(
            "round {round}: bare POST {bare:.1?}, handler {handler:.1?} (medians of {calls}): {ratio:.2} times"
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "median of {rounds} rounds: {:.2} times a bare POST",
        ratios[rounds / 2]
    );
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn posts(calls: usize) -> Duration {
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
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let mut times = Vec::new();
    for call in 0..calls + WARM {
        let begun = Instant::now();
        let request = hyper::Request::post("/")
            .header("host", "localhost")
            .body(Full::new(Bytes::from(EVENT)));
        sender.ready().await.expect("it stays open");
        let answer = sender
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
        if call >= WARM {
            times.push(begun.elapsed());
        }
    }
    drop(server.stdin.take());
    server.wait().expect("it ends");
    median(times)
}

async fn invocations(calls: usize) -> Duration {
    let spec = HandlerSpec {
        argv: vec![env!("CARGO_BIN_EXE_lambda-work").to_owned()],
        cwd: "/".into(),
        environment: std::collections::BTreeMap::new(),
        memory_bytes: None,
    };
    let executor = HandlerExecutor::new(spec, Some(Duration::from_mins(1)), OutputMode::Keep, None);
    let executor = executor.expect("just built");
    let input = Arc::new(Input::Value(EVENT.into()));
    let mut times = Vec::new();
    for call in 0..calls + WARM {
        let item = CallItem {
            id: PageId::new(0, 1).origin(0),
            attempt: 1,
            epoch: Epoch(1),
            generation: Generation(0),
            input: input.clone(),
        };
        let one = Call {
            run: RunId::new("bench"),
            items: vec![item],
            batch: false,
            grace: Duration::ZERO,
        };
        let begun = Instant::now();
        let report = executor.call(one, Stop::new()).await;
        assert!(matches!(report.items[..], [ItemReport::Succeeded(_)]));
        if call >= WARM {
            times.push(begun.elapsed());
        }
    }
    assert_eq!(executor.cold_starts().count, 1);
    median(times)
}
