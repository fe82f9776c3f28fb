//! Where an item's object lies, for calls on this machine: whether it still is as listed, before a call and
//! after it, and the file that `{path}` stands for. What is done with it is the executor's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::scratch::{self, Scratch};
use crate::core::class::{Class, Failure};
use crate::core::item::{Input, Object};
use crate::ports::executor::{CallItem, ItemReport, Stop};
use crate::ports::objects::{Objects, ObjectsError};

/// The store of a job's objects; none for jobs over values.
pub(in crate::adapters) struct Sources {
    input: Option<Arc<dyn Objects>>,
}

impl Sources {
    pub(in crate::adapters) fn new(input: Option<Arc<dyn Objects>>) -> Self {
        Self { input }
    }

    /// Looks at the sources of a call that is to begin.
    pub(in crate::adapters) async fn look_at<'a>(&'a self, items: &'a [CallItem]) -> Looked<'a> {
        let mut refused = Vec::with_capacity(items.len());
        let mut going = Vec::with_capacity(items.len());
        for item in items {
            match self.look(item).await {
                Source::AsListed => {
                    going.push(item);
                    refused.push(None);
                }
                Source::Changed(failure) | Source::Gone(failure) => {
                    refused.push(Some(ItemReport::Failed(failure)));
                }
            }
        }
        Looked {
            sources: self,
            refused,
            going,
        }
    }

    /// The file of an item, or nothing for a value.
    pub(in crate::adapters) async fn file_for(
        &self,
        item: &CallItem,
        stop: &Stop,
    ) -> Result<File, NotRun> {
        let Input::Object(object) = &*item.input else {
            return Ok(File::None);
        };
        let Some(input) = &self.input else {
            let cause = "{path} means an object, and this job has no store of objects";
            return Err(Failure::new(Class::BadInput, cause).into());
        };
        if let Some(path) = input.path(&object.store_key()) {
            return Ok(File::InStore(path));
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(NotRun::Stopped),
            copy = Scratch::download(&**input, object) => Ok(File::Copy(copy?)),
        }
    }

    /// How the source stands now, where it is a file in a directory; elsewhere nobody looks.
    async fn look(&self, item: &CallItem) -> Source {
        let (Input::Object(object), Some(input)) = (&*item.input, &self.input) else {
            return Source::AsListed;
        };
        if input.path(&object.store_key()).is_none() {
            return Source::AsListed;
        }
        match input.head(&object.store_key()).await {
            Ok(now) if now.pin == object.pin => Source::AsListed,
            Ok(now) => Source::Changed(changed(object, &now)),
            Err(ObjectsError::NotFound(key)) => Source::Gone(Failure::new(
                Class::Gone,
                format!("{key} is not there any more"),
            )),
            Err(error) => Source::Changed(scratch::failure_of(&error)),
        }
    }

    /// What an item's report is worth, now that its call is over.
    async fn check_after(&self, item: &CallItem, report: ItemReport) -> ItemReport {
        match report {
            ItemReport::Undecided(_) => report,
            ItemReport::Succeeded(_) | ItemReport::Failed(_) => match self.look(item).await {
                Source::Changed(failure) => ItemReport::Failed(failure),
                // A command may move or delete what it has done with.
                Source::AsListed | Source::Gone(_) => report,
            },
        }
    }
}

/// The items of a call, once their sources were looked at.
pub(in crate::adapters) struct Looked<'a> {
    sources: &'a Sources,
    /// One for each item: why it does not go.
    refused: Vec<Option<ItemReport>>,
    going: Vec<&'a CallItem>,
}

impl<'a> Looked<'a> {
    /// Those whose sources are as listed.
    pub(in crate::adapters) fn going(&self) -> &[&'a CallItem] {
        &self.going
    }

    /// The reports of all, from the answers of those that went.
    pub(in crate::adapters) async fn look_again(self, answers: Vec<ItemReport>) -> Vec<ItemReport> {
        let mut went = self.going.into_iter().zip(answers);
        let mut reports = Vec::with_capacity(self.refused.len());
        for refused in self.refused {
            if let Some(report) = refused {
                reports.push(report);
                continue;
            }
            let (item, answer) = went.next().expect("one answer for each that went");
            reports.push(self.sources.check_after(item, answer).await);
        }
        reports
    }
}

fn changed(listed: &Object, now: &Object) -> Failure {
    let cause = format!(
        "it was listed with {} bytes as {}, and has now {} bytes as {}",
        listed.size_bytes, listed.pin.etag, now.size_bytes, now.pin.etag
    );
    Failure::new(Class::SourceChanged, cause)
}

/// A source, compared with what was listed.
enum Source {
    AsListed,
    Changed(Failure),
    Gone(Failure),
}

/// Why nothing ran.
pub(in crate::adapters) enum NotRun {
    Stopped,
    Failed(Failure),
}

impl From<Failure> for NotRun {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What `{path}` stands for.
pub(in crate::adapters) enum File {
    None,
    InStore(PathBuf),
    Copy(Scratch),
}

impl File {
    pub(in crate::adapters) fn path(&self) -> &Path {
        match self {
            Self::None => Path::new(""),
            Self::InStore(path) => path,
            Self::Copy(copy) => copy.path(),
        }
    }
}
