//! `run`, `resume`, `worker`: a process at work, from its signals to its exit code.

use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::bill;
use super::health;
use super::open::{Open, current_dir, job_errors, open, open_uri, parse};
use super::watch;
use crate::cli::args::{Global, ResumeArgs, RunArgs, RunRef, WorkerArgs};
use crate::cli::error::{CliError, ErrorCode};
use crate::cli::exit::Exit;
use crate::cli::names::run_name;
use crate::cli::screen::tell;
use crate::cli::text::escape;
use crate::cli::view::{Snapshot, json_line};
use crate::core::job::{InputSpec, Job, Location};
use crate::core::run::{BreachStops, Limits, Reason, RunRefusal, RunStatus};
use crate::core::tolerance::Tolerance;
use crate::job_file::{Executors, Overrides};
use crate::ledger::{LedgerError, NewRun, RunRow};
use crate::ports::TableError;
use crate::runner::{Ended, Foreground, JobOpener, Protection, Purpose, Role, StoredJob};
use crate::shell::Stores;
use crate::shell::finalizer::Manifest;

/// `trommel run JOB`.
pub(super) async fn run(global: &Global, args: RunArgs) -> Result<Exit, CliError> {
    let overrides = Overrides {
        dir: current_dir()?,
        input: args.input,
        results: args.results,
        ledger: global.ledger().map(str::to_owned),
        max_concurrency: args.max_concurrency,
    };
    let stored = read_job(&args.job, overrides)?;
    let job = stored.parse(Executors::Commands).map_err(job_errors)?;
    check_input(&job)?;
    if matches!(job.input, InputSpec::Events(_)) {
        return Err(CliError::new(
            ErrorCode::BadArgument,
            "this job's input is events, which have no end",
        )
        .hinted("take them in as they come: trommel serve JOB"));
    }
    let at = open_uri(&job.ledger, Purpose::Run).await?;
    let working = Working::new(&at, &job, args.role).await?;
    mention_unfinished(&at, &job, global).await?;
    let row = create(&at, &job, &stored).await?;
    working.work(&at, &job, &row, global).await
}

/// Reads a job file.
pub(super) fn read_job(file: &Path, overrides: Overrides) -> Result<StoredJob, CliError> {
    let unread = |error: std::io::Error| {
        CliError::new(
            ErrorCode::File,
            format!("the job file {} cannot be read", file.display()),
        )
        .because(error)
        .hinted("name a TOML file that says what to read and what to run: trommel run job.toml")
    };
    let text = std::fs::read_to_string(file).map_err(unread)?;
    let absolute = std::path::absolute(file).map_err(unread)?;
    let base = absolute.parent().unwrap_or(Path::new("/"));
    Ok(StoredJob {
        text,
        file: file.display().to_string(),
        base: base.to_string_lossy().into_owned(),
        overrides,
    })
}

/// A local input that is not there is told at once, not by a failed run.
fn check_input(job: &Job) -> Result<(), CliError> {
    let (path, wanted) = match &job.input {
        InputSpec::Objects(Location::Path(path)) => (path, "directory"),
        InputSpec::Jsonl(Location::Path(path))
        | InputSpec::Json(Location::Path(path))
        | InputSpec::Csv {
            file: Location::Path(path),
            ..
        } => (path, "file"),
        InputSpec::Objects(Location::S3 { .. })
        | InputSpec::Jsonl(Location::S3 { .. })
        | InputSpec::Json(Location::S3 { .. })
        | InputSpec::Csv {
            file: Location::S3 { .. },
            ..
        }
        | InputSpec::Inline(_)
        | InputSpec::Range { .. }
        | InputSpec::Events(_) => return Ok(()),
    };
    let shown = path.display();
    let problem = match std::fs::metadata(path) {
        Ok(found) if found.is_dir() == (wanted == "directory") => return Ok(()),
        Ok(_) => format!("the input {shown} is no {wanted}"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            format!("the input {shown} is not there")
        }
        Err(error) => format!("the input {shown} cannot be read: {error}"),
    };
    Err(CliError::new(ErrorCode::File, problem)
        .hinted("paths in a job file are relative to it; --input names another place"))
}

async fn mention_unfinished(at: &Open, job: &Job, global: &Global) -> Result<(), CliError> {
    /// Only the latest are looked at.
    const LOOKED_AT: usize = 20;
    if global.quiet {
        return Ok(());
    }
    for run in at.ledger.runs().await?.iter().rev().take(LOOKED_AT) {
        if run.job != job.name {
            continue;
        }
        let status = at.ledger.run(&run.id).await?.state.status;
        if matches!(status, RunStatus::Running | RunStatus::Paused) {
            let id = &run.id;
            tell(&format!(
                "an earlier run of this job is unfinished: trommel resume {id} goes on with it\n"
            ));
            return Ok(());
        }
    }
    Ok(())
}

async fn create(at: &Open, job: &Job, stored: &StoredJob) -> Result<RunRow, CliError> {
    /// Names are drawn from 2^28: one that is taken is drawn again.
    const DRAWS_MAX: u32 = 5;
    let runtime = at.backend.runtime();
    let mut taken = None;
    for _ in 0..DRAWS_MAX {
        let new = NewRun {
            id: run_name(runtime.entropy.next_u64()),
            job: job.name.clone(),
            job_text: stored.text.clone(),
            job_file: stored.file.clone(),
            base: stored.base.clone(),
            options: serde_json::to_string(&stored.overrides).unwrap_or_default(),
            limits: Limits {
                tolerance: job.tolerance,
                breach_stops: BreachStops::AtOnce,
            },
            created: runtime.clock.now(),
        };
        match at.ledger.create_run(&new).await {
            Ok(()) => return Ok(at.ledger.run(&new.id).await?),
            Err(error @ LedgerError::Table(TableError::ConditionFailed { .. })) => {
                taken = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(CliError::new(ErrorCode::Internal, "no free name for a run")
        .because(taken.map_or_else(String::new, |error| error.to_string())))
}

/// `trommel resume RUN`.
pub(super) async fn resume(global: &Global, args: ResumeArgs) -> Result<Exit, CliError> {
    let looking = open(global, Purpose::Write).await?;
    let row = looking.run(&args.run.run).await?;
    let at = looking.into_running().await?;
    let row = at.run(&RunRef::Id(row.id)).await?;
    let limits_before = row.state.limits;
    let row = replace_job(&at, row, args.job.as_deref()).await?;
    let is_rejudged = row.state.limits != limits_before;
    let job = parse(&StoredJob::of(&row))?;
    let working = Working::new(&at, &job, args.role).await?;
    let tolerance = match (
        args.tolerated_failure_count,
        args.tolerated_failure_percentage,
    ) {
        (None, None) => None,
        (count, percent) => Some(Tolerance { count, percent }),
    };
    let stops = if args.to_the_end {
        BreachStops::AtTheEnd
    } else {
        BreachStops::AtOnce
    };
    let is_new = tolerance.is_some() || args.to_the_end || is_rejudged;
    let limits = is_new.then(|| Limits {
        tolerance: tolerance.unwrap_or(row.state.limits.tolerance),
        breach_stops: stops,
    });
    match at.ledger.resume(&row, limits).await {
        Ok(_) => {}
        Err(LedgerError::Run(RunRefusal::NeedsBudget(reason))) => {
            let id = &row.id;
            return Err(CliError::new(
                ErrorCode::NoBudget,
                format!("run {id} paused because {reason}"),
            )
            .hinted(format!(
                "a larger budget: trommel resume {id} --tolerated-failure-count N"
            ))
            .hinted(format!(
                "or all of it, with the verdict FAILED: trommel resume {id} --to-the-end"
            )));
        }
        Err(LedgerError::Run(RunRefusal::Ended(status))) => {
            let id = &row.id;
            return Err(CliError::new(
                ErrorCode::WrongStatus,
                format!("run {id} has ended: it is {}", status.as_str()),
            )
            .hinted(format!("trommel redrive {id} takes what did not succeed")));
        }
        Err(error) => return Err(error.into()),
    }
    if args.detach {
        return Ok(Exit::Success);
    }
    let row = at.run(&RunRef::Id(row.id)).await?;
    working.work(&at, &job, &row, global).await
}

/// Puts another job file in place of the stored one, and says what differs.
pub(super) async fn replace_job(
    at: &Open,
    row: RunRow,
    file: Option<&Path>,
) -> Result<RunRow, CliError> {
    let Some(file) = file else { return Ok(row) };
    let former = StoredJob::of(&row);
    let stored = read_job(file, former.overrides.clone())?;
    let job = stored.parse(Executors::Commands).map_err(job_errors)?;
    if job.name != row.job {
        let problem = format!(
            "{} is the job {}, the run is of {}",
            stored.file, job.name, row.job
        );
        return Err(CliError::new(ErrorCode::BadArgument, problem));
    }
    // What a person has allowed since stands, unless the new file itself allows something else.
    let is_rejudged = parse(&former)?.tolerance != job.tolerance;
    let limits = if is_rejudged {
        Limits {
            tolerance: job.tolerance,
            ..row.state.limits
        }
    } else {
        row.state.limits
    };
    for line in differing(&former.text, &stored.text) {
        tell(&format!("{line}\n"));
    }
    let new = NewRun {
        id: row.id.clone(),
        job: row.job.clone(),
        job_text: stored.text,
        job_file: stored.file,
        base: stored.base,
        options: row.options.clone(),
        limits,
        created: row.created,
    };
    at.ledger.replace_job(&new).await?;
    at.run(&RunRef::Id(row.id)).await
}

/// Lines that are in one text only: what a person wants to see of a small change.
fn differing<'a>(former: &'a str, now: &'a str) -> Vec<String> {
    let only = |one: &'a str, other: &str| -> Vec<&'a str> {
        one.lines()
            .filter(|line| !other.lines().any(|there| there == *line))
            .collect()
    };
    let gone = only(former, now)
        .into_iter()
        .map(|line| format!("- {line}"));
    let come = only(now, former)
        .into_iter()
        .map(|line| format!("+ {line}"));
    gone.chain(come).collect()
}

/// `trommel worker JOB --lane L`.
pub(super) async fn worker(global: &Global, args: WorkerArgs) -> Result<Exit, CliError> {
    let overrides = Overrides {
        dir: current_dir()?,
        ledger: global.ledger().map(str::to_owned),
        ..Overrides::default()
    };
    let stored = read_job(&args.job, overrides)?;
    let job = stored.parse(Executors::Commands).map_err(job_errors)?;
    if job.lane(args.lane).is_none() {
        let problem = format!("the job {} has no {} lane", job.name, args.lane);
        return Err(CliError::new(ErrorCode::BadArgument, problem));
    }
    let at = open_uri(&job.ledger, Purpose::Run).await?;
    let working = Working::new(&at, &job, Role::All).await?;
    if !global.quiet {
        tell(&format!(
            "working on the {} lane of {}; Ctrl-C drains\n",
            args.lane, job.name
        ));
    }
    let _health = health::open(args.health, &working.foreground.at_work, global).await?;
    let leaving = Leaving::listen(&working.foreground.drain, global)?;
    working.foreground.work(&job, &[args.lane]).await?;
    bill::tell(&at, global);
    Ok(leaving.exit().unwrap_or(Exit::Success))
}

/// This process at work on a job.
pub(super) struct Working {
    pub(super) foreground: Foreground,
}

impl Working {
    /// Checks that the job's programs are there, and gets ready.
    pub(super) async fn new(at: &Open, job: &Job, role: Role) -> Result<Self, CliError> {
        let opener = match role {
            Role::All => JobOpener::commands(at.backend.clone(), std::env::current_exe().ok()),
            Role::Router if at.backend.is_run_by_another().is_some() => {
                let problem = "an embedded ledger has one process: nobody could help a router";
                return Err(CliError::new(ErrorCode::BadArgument, problem)
                    .hinted("leave --role out, or keep the ledger in DynamoDB"));
            }
            Role::Router => JobOpener::router(at.backend.clone()),
        };
        let nothing: Arc<dyn crate::ports::Objects> =
            Arc::new(crate::adapters::memory::MemoryObjects::new());
        let nothing = Stores {
            input: nothing.clone(),
            input_prefix: Vec::new(),
            scratch: nothing,
            scratch_prefix: Vec::new(),
        };
        opener.lane_executors(job, &nothing).await.map_err(|why| {
            CliError::new(ErrorCode::NoProgram, why)
                .hinted("a program with a slash is looked for from the job file, others in PATH")
        })?;
        let foreground = Foreground {
            backend: at.backend.clone(),
            opener: Arc::new(opener),
            who: format!("process {}", std::process::id()),
            role,
            drain: CancellationToken::new(),
            protection: Protection::of_this_task(at.backend.runtime()),
            at_work: Arc::default(),
        };
        Ok(Self { foreground })
    }

    /// Works on a run until it ends, shows how it goes, and tells how it ended.
    pub(super) async fn work(
        &self,
        at: &Open,
        job: &Job,
        row: &RunRow,
        global: &Global,
    ) -> Result<Exit, CliError> {
        let leaving = Leaving::listen(&self.foreground.drain, global)?;
        let done = CancellationToken::new();
        let work = async {
            let ended = self.foreground.run(job, &row.id).await;
            done.cancel();
            ended
        };
        let (ended, shown) =
            tokio::join!(work, watch::watch(&at.ledger, &row.id, job, global, &done));
        let (ended, shown) = (ended?, shown?);
        tell_end(&ended, &shown, job, at, global);
        let exit = Exit::of_run(shown.status, shown.item_counts.settled().failures());
        Ok(leaving
            .exit()
            .filter(|_| is_interrupted(&ended.row))
            .unwrap_or(exit))
    }
}

fn is_interrupted(row: &RunRow) -> bool {
    match (&row.state.status, &row.state.reason) {
        (RunStatus::Paused, Some(Reason::Interrupted)) | (RunStatus::Running, _) => true,
        (RunStatus::Paused | RunStatus::Succeeded | RunStatus::Failed | RunStatus::Aborted, _) => {
            false
        }
    }
}

fn tell_end(ended: &Ended, shown: &Snapshot, job: &Job, at: &Open, global: &Global) {
    let run = &shown.run;
    let manifest = ended.manifest.as_ref().zip(job.results.as_ref());
    let results = manifest.map(|(manifest, place)| manifest_place(manifest, place));
    if global.json {
        let mut value = serde_json::to_value(shown).unwrap_or_default();
        if let (Some(object), Some(results)) = (value.as_object_mut(), &results) {
            object.insert("results".into(), results.as_str().into());
        }
        bill::add(&mut value, at);
        // A reader that went away is no failure of the run.
        let _ = crate::cli::print(&json_line(&value));
    } else {
        let _ = crate::cli::print(&format!("{run}\n"));
    }
    bill::tell(at, global);
    if global.quiet {
        return;
    }
    if let Some(results) = results {
        tell(&format!("results: {}\n", escape(&results)));
    }
    if let Some(Reason::Input { .. }) = &ended.row.state.reason {
        let file = escape(&ended.row.job_file);
        tell(&format!(
            "once the input is repaired, start anew: trommel run {file}\n"
        ));
    }
}

/// The manifest as it can be opened from here: a path, relative if it lies below the current directory.
fn manifest_place(manifest: &Manifest, place: &Location) -> String {
    let key = format!("{}/manifest.json", manifest.run);
    match place {
        Location::Path(path) => {
            let path = path.join(key);
            let here = std::env::current_dir().unwrap_or_default();
            let shown = path.strip_prefix(here).unwrap_or(&path);
            shown.display().to_string()
        }
        Location::S3 { bucket, key: under } => {
            let under = under.trim_end_matches('/');
            let slash = if under.is_empty() { "" } else { "/" };
            format!("s3://{bucket}/{under}{slash}{key}")
        }
    }
}

/// Listens for signals: the first asks to drain, the second leaves at once.
pub(super) struct Leaving {
    exit: Arc<std::sync::Mutex<Option<Exit>>>,
}

impl Leaving {
    pub(super) fn listen(drain: &CancellationToken, global: &Global) -> Result<Self, CliError> {
        let failed = |error: std::io::Error| {
            CliError::new(ErrorCode::Internal, "signals cannot be caught").because(error)
        };
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let exit = Arc::new(std::sync::Mutex::new(None));
        let (drain, noted, quiet) = (drain.clone(), exit.clone(), global.quiet);
        let listen = async move {
            for turn in 0.. {
                let exit = tokio::select! {
                    _ = interrupt.recv() => Exit::Sigint,
                    _ = terminate.recv() => Exit::Sigterm,
                };
                if turn > 0 {
                    tell("leaving now; nothing is lost, `trommel resume` goes on\n");
                    std::process::exit(i32::from(exit.code()));
                }
                *noted
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(exit);
                if !quiet {
                    tell("finishing what runs, giving back the rest; once more leaves at once\n");
                }
                drain.cancel();
            }
        };
        let runtime = crate::adapters::tokio_runtime::runtime();
        runtime.spawn.spawn("signals", Box::pin(listen));
        Ok(Self { exit })
    }

    /// The exit code of the signal that came, if one did.
    pub(super) fn exit(&self) -> Option<Exit> {
        *self
            .exit
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
