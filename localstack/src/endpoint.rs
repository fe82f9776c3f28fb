//! Finds an endpoint or starts one, once in a test process, and waits until it answers.

use std::io::{self, Write as _};
use std::time::Duration;

use aws_sdk_dynamodb::error::DisplayErrorContext;
use tokio::sync::OnceCell;
use trommel::adapters::aws::{Clients, Endpoint};

use crate::choice::{CHOICE_VAR, Choice, URL_VAR};
use crate::profile::{Functions, Kind, Profile};
use crate::watchdog::Guard;
use crate::{docker, ministack};

/// All three services must have answered by then; the slowest start is DynamoDB Local's, 4 s idle.
const ANSWERS_WITHIN: Duration = Duration::from_mins(2);

/// Between two asks.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// What tests play on.
#[derive(Debug)]
pub enum Stage {
    /// An emulator that answers.
    On(Emulator),
    /// Nothing, on purpose: whoever needs an emulator says loudly what it leaves out.
    None,
}

/// An emulator that answers.
#[derive(Debug)]
pub struct Emulator {
    kind: Kind,
    url: String,
    /// Ends what we started when this process ends.
    _guard: Option<Guard>,
}

/// No endpoint is to be had, with all that was tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no emulator of SQS, DynamoDB and S3 is to be had:\n{}\nThree ways out:\n  \
     1. start one and name it: {URL_VAR}=http://127.0.0.1:4566 (localstack/compose.yaml starts LocalStack)\n  \
     2. install Docker and start it; where no registry answers, localstack/build-image.sh makes the image\n  \
     3. install Python 3.10 or newer with pip, so that MiniStack can be installed from PyPI\n\
     Or leave the emulator tests out: {CHOICE_VAR}=none",
    .tried.iter().map(|line| format!("  - {line}")).collect::<Vec<_>>().join("\n")
)]
pub struct NoEndpoint {
    /// What was tried, and why it was not to be had.
    pub tried: Vec<String>,
}

impl Stage {
    /// The stage of this process, if it runs functions; else a MiniStack beside it, started at the first call.
    ///
    /// # Errors
    /// Names what was tried and three ways out.
    pub async fn find_with_functions() -> Result<&'static Self, NoEndpoint> {
        static BESIDE: OnceCell<Result<Stage, NoEndpoint>> = OnceCell::const_new();
        let stage = Self::find().await?;
        let runs = match stage {
            Self::On(emulator) => emulator.profile().functions,
            Self::None => return Ok(stage),
        };
        match runs {
            Functions::Run => return Ok(stage),
            Functions::NotRun => {}
        }
        let beside = BESIDE.get_or_init(|| async {
            let started = tokio::task::spawn_blocking(beside_blocking).await;
            started
                .unwrap_or_else(|e| Err(NoEndpoint::because(format!("the start broke off: {e}"))))
        });
        beside.await.as_ref().map_err(Clone::clone)
    }

    /// The stage of this process: found or started at the first call, shared from then on.
    ///
    /// # Errors
    /// Names what was tried and three ways out.
    pub async fn find() -> Result<&'static Self, NoEndpoint> {
        static STAGE: OnceCell<Result<Stage, NoEndpoint>> = OnceCell::const_new();
        let found = STAGE.get_or_init(|| async {
            // On a thread and a runtime of its own: the test that happens to be first may end, and
            // its runtime with it, while the others still play.
            let found = tokio::task::spawn_blocking(find_blocking).await;
            found.unwrap_or_else(|e| Err(NoEndpoint::because(format!("the search broke off: {e}"))))
        });
        found.await.as_ref().map_err(Clone::clone)
    }
}

impl NoEndpoint {
    fn because(reason: String) -> Self {
        Self {
            tried: vec![reason],
        }
    }
}

impl Emulator {
    /// Which one it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it can do.
    pub fn profile(&self) -> Profile {
        self.kind.profile()
    }

    /// The pipeline's word for it, with dummy credentials.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::emulator(&self.url).with_transact_writes_max(self.profile().transact_writes_max)
    }

    /// New clients. Each test takes its own: connections belong to the runtime that opened them.
    pub async fn clients(&self) -> Clients {
        Clients::open(self.endpoint()).await
    }
}

fn find_blocking() -> Result<Stage, NoEndpoint> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| NoEndpoint::because(format!("no runtime: {e}")))?;
    let found = runtime.block_on(choose());
    match &found {
        Ok(Stage::On(emulator)) => {
            let (kind, url) = (emulator.kind.as_str(), &emulator.url);
            say(&format!("playing on {kind} at {url}"));
        }
        Ok(Stage::None) => say(&format!("{CHOICE_VAR}=none: playing on nothing")),
        Err(_) => {}
    }
    found
}

/// A MiniStack for the functions that the stage does not run.
fn beside_blocking() -> Result<Stage, NoEndpoint> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| NoEndpoint::because(format!("no runtime: {e}")))?;
    let started = runtime.block_on(ministack()).map_err(NoEndpoint::because)?;
    say(&format!("functions run on MiniStack at {}", started.url));
    Ok(Stage::On(started))
}

/// Says it past the test harness, which keeps what a passing test prints to itself. Where nobody
/// reads stderr, nobody misses it.
pub(crate) fn say(text: &str) {
    let line = format!("trommel-localstack: {text}\n");
    io::stderr().write_all(line.as_bytes()).ok();
}

async fn choose() -> Result<Stage, NoEndpoint> {
    let one =
        |started: Result<Emulator, String>| started.map(Stage::On).map_err(NoEndpoint::because);
    match Choice::from_env().map_err(NoEndpoint::because)? {
        Choice::None => Ok(Stage::None),
        Choice::Url(url) => one(at_url(url).await),
        Choice::LocalStack => one(localstack().await),
        Choice::MiniStack => one(ministack().await),
        Choice::First => {
            let docker = match localstack().await {
                Ok(emulator) => return Ok(Stage::On(emulator)),
                Err(reason) => reason,
            };
            say(&format!("not {docker}"));
            match ministack().await {
                Ok(emulator) => Ok(Stage::On(emulator)),
                Err(reason) => Err(NoEndpoint {
                    tried: vec![format!("{URL_VAR} is not set"), docker, reason],
                }),
            }
        }
    }
}

async fn at_url(url: String) -> Result<Emulator, String> {
    let emulator = Emulator {
        kind: Kind::Unknown,
        url,
        _guard: None,
    };
    let answers = answers(&emulator, || None).await;
    answers.map_err(|reason| format!("{}: {reason}", emulator.url))?;
    Ok(emulator)
}

async fn localstack() -> Result<Emulator, String> {
    let named = |reason: String| format!("LocalStack in Docker: {reason}");
    let (url, guard) = docker::start().await.map_err(named)?;
    let emulator = Emulator {
        kind: Kind::LocalStack,
        url,
        _guard: Some(guard),
    };
    answers(&emulator, || None).await.map_err(named)?;
    Ok(emulator)
}

async fn ministack() -> Result<Emulator, String> {
    let named = |reason: String| format!("MiniStack from PyPI: {reason}");
    let mut started = ministack::start().map_err(named)?;
    let emulator = Emulator {
        kind: Kind::MiniStack,
        url: started.url.clone(),
        _guard: None,
    };
    let ended = || {
        let ended = started.guard.has_ended();
        ended.then(|| format!("it ended: {}", started.last_words()))
    };
    answers(&emulator, ended).await.map_err(named)?;
    Ok(Emulator {
        _guard: Some(started.guard),
        ..emulator
    })
}

/// Waits until all three services answer. `ended` says why there is no more hope.
async fn answers(
    emulator: &Emulator,
    mut ended: impl FnMut() -> Option<String>,
) -> Result<(), String> {
    let clients = emulator.clients().await;
    let deadline = tokio::time::Instant::now() + ANSWERS_WITHIN;
    loop {
        let Err(reason) = ask(&clients).await else {
            return Ok(());
        };
        if let Some(end) = ended() {
            return Err(end);
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(format!("does not answer: {reason}"));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Asks each service for as little as possible.
async fn ask(clients: &Clients) -> Result<(), String> {
    let queues = clients.sqs.list_queues().max_results(1).send().await;
    queues.map_err(|e| format!("SQS: {}", DisplayErrorContext(e)))?;
    let tables = clients.dynamodb.list_tables().limit(1).send().await;
    tables.map_err(|e| format!("DynamoDB: {}", DisplayErrorContext(e)))?;
    let buckets = clients.s3.list_buckets().max_buckets(1).send().await;
    buckets.map_err(|e| format!("S3: {}", DisplayErrorContext(e)))?;
    Ok(())
}
