//! Event mode: a process that takes in events and tends windows, and works on items unless workers do.

use std::sync::Arc;

use crate::core::id::RunId;
use crate::core::job::{EventsSpec, InputSpec, Job, Location};
use crate::core::mark::Sequencer;
use crate::core::run::{BreachStops, Limits};
use crate::core::time::Timestamp;
use crate::ledger::NewRun;
use crate::ports::Queue;
use crate::shell::Session;
use crate::shell::intake::{Ingest, IngestParts};

use super::foreground::{Foreground, RunnerError};
use super::opener::StoredJob;

/// A job of endless input, as it is served.
pub struct Served {
    /// The job.
    pub job: Arc<Job>,
    /// Its events.
    pub events: EventsSpec,
    /// Its text.
    pub stored: StoredJob,
}

impl Served {
    /// The job, if its input is events.
    pub fn new(job: &Job, stored: &StoredJob) -> Option<Self> {
        match &job.input {
            InputSpec::Events(events) => Some(Self {
                job: Arc::new(job.clone()),
                events: events.clone(),
                stored: stored.clone(),
            }),
            InputSpec::Objects(_)
            | InputSpec::Jsonl(_)
            | InputSpec::Csv { .. }
            | InputSpec::Json(_)
            | InputSpec::Inline(_)
            | InputSpec::Range { .. } => None,
        }
    }

    /// What each window's run starts with.
    fn template(&self) -> NewRun {
        NewRun {
            id: RunId::new("window"),
            job: self.job.name.clone(),
            job_text: self.stored.text.clone(),
            job_file: self.stored.file.clone(),
            base: self.stored.base.clone(),
            options: serde_json::to_string(&self.stored.overrides).unwrap_or_default(),
            limits: Limits {
                tolerance: self.job.tolerance,
                breach_stops: BreachStops::AtOnce,
            },
            created: Timestamp(0),
        }
    }
}

/// Where Trommel itself writes in S3, as `bucket/prefix`: events of these places would never end.
pub fn own_places(job: &Job) -> Vec<Vec<u8>> {
    let places = [&job.results, &job.scratch].into_iter().flatten();
    let in_s3 = places.filter_map(|place| match place {
        Location::S3 { bucket, key } => {
            let key = key.trim_end_matches('/');
            let slash = if key.is_empty() { "" } else { "/" };
            Some(format!("{bucket}/{key}{slash}").into_bytes())
        }
        Location::Path(_) => None,
    });
    in_s3.collect()
}

impl Foreground {
    /// Takes in events and tends windows until it is asked to stop. What is unfinished then others go on with, or
    /// the next one.
    ///
    /// # Errors
    /// [`RunnerError`].
    pub async fn serve(&self, served: &Served) -> Result<(), RunnerError> {
        let work = self.take_in(served);
        self.protection.during(&self.at_work, work).await
    }

    async fn take_in(&self, served: &Served) -> Result<(), RunnerError> {
        let lanes = self.role.lanes(&served.job);
        while !self.drain.is_cancelled() {
            let env = self.env(&served.job).await?;
            let ingest = self.ingest(served).await?;
            let session = Session::serve(env, &lanes, &self.who, ingest).await?;
            self.at_work.begin(session.env());
            self.keep(session).await;
        }
        Ok(())
    }

    async fn ingest(&self, served: &Served) -> Result<Arc<Ingest>, RunnerError> {
        let from = self.backend.ingest(&served.events).await?;
        self.ingest_from(served, from).await
    }

    /// Takes in from this queue, where sequencers are believed or not.
    pub(super) async fn ingest_from(
        &self,
        served: &Served,
        (queue, sequencer): (Arc<dyn Queue>, Sequencer),
    ) -> Result<Arc<Ingest>, RunnerError> {
        let backend = &self.backend;
        let results = match &served.job.results {
            Some(place) => Some(backend.tree(place).await?),
            None => None,
        };
        Ok(Ingest::new(IngestParts {
            job: served.job.clone(),
            events: served.events.clone(),
            template: served.template(),
            queue,
            sequencer,
            results,
            own_places: own_places(&served.job),
        }))
    }
}
