//! `/healthz` of the real program: what a supervisor asks of a process that works for long.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::emulator_arms::emulator;
use crate::emulator_journey::Cloud;
use crate::support::{Place, wait_until};

/// A process starts, a call begins, within this time, however busy the machine.
const WITHIN: Duration = Duration::from_secs(60);

/// The answer's status and body, if anybody answers.
fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(WITHIN)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Where it says that it can be asked.
fn address_in(said: &str) -> Option<String> {
    let (_, after) = said.split_once("health at http://")?;
    let (address, _) = after.split_once("/healthz")?;
    Some(address.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_tells_its_supervisor_that_it_works_and_that_it_drains() {
    let Some(emulator) = emulator("the health of a worker").await else {
        return;
    };
    let cloud = Cloud::new(emulator, "health").await;
    let place = &cloud.place;
    cloud.write_one_item_job("health");
    place.script(
        "work",
        r#"read value; note start "$value"; while [ ! -e go ]; do sleep 0.05; done"#,
    );
    let worker = place.start(&["worker", "job.toml", "--lane", "function", "--health", "0"]);
    wait_until("it says where", WITHIN, || {
        address_in(&worker.said()).is_some()
    });
    let address = address_in(&worker.said()).expect("it was said");
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let health = || -> Option<(u16, Value)> {
        let (status, body) = get(&address, "/healthz")?;
        Some((status, serde_json::from_str(&body).ok()?))
    };
    let is = |wanted: u16, word: &str| {
        health().is_some_and(|(status, body)| status == wanted && body["status"] == word)
    };
    wait_until("it works", WITHIN, || is(200, "ok"));
    let (_, body) = health().expect("it answers");
    assert_eq!(body["callsRunning"], 0, "{body}");
    assert!(body["session"].is_string(), "{body}");
    let (status, _) = get(&address, "/").expect("it answers");
    assert_eq!(status, 404);

    let router = place.start(&["run", "job.toml", "--role", "router"]);
    wait_until("the item runs", WITHIN, || place.log().count("start") > 0);
    let (_, body) = health().expect("it answers");
    assert_eq!(body["callsRunning"], 1, "{body}");
    worker.signal(Signal::SIGTERM);
    wait_until("it drains", WITHIN, || is(200, "draining"));
    place.write("go", "");
    worker.wait_within(WITHIN).exits(143);
    router.wait_within(WITHIN).exits(0);
}

#[test]
fn a_port_that_is_taken_is_told_before_anything_is_done() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let place = Place::with_job(
        r#"
        name = "health"
        input = { inline = ["one"] }
        [function]
        command = ["cat"]
        "#,
    );
    let worker = place.trommel(&[
        "worker", "job.toml", "--lane", "function", "--health", &port,
    ]);
    let worker = worker.exits(2);
    assert!(
        worker.stderr.contains("no health can be told"),
        "{}",
        worker.stderr
    );
    assert!(
        worker.stderr.contains("--health 127.0.0.1:8080"),
        "{}",
        worker.stderr
    );
    let junk = place.trommel(&[
        "worker", "job.toml", "--lane", "function", "--health", "here",
    ]);
    assert!(junk.exits(2).stderr.contains("write a port"));
}
