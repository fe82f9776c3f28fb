//! Sets the stage: the pipeline's own blueprint, and the buckets its users would have.

use std::fmt::Display;

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata as _};
use trommel::adapters::aws::{ApplyError, Blueprint, Clients, Found};

use crate::endpoint::Emulator;

/// Why the stage could not be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProvisionError {
    /// A table or a queue.
    #[error(transparent)]
    Blueprint(#[from] ApplyError),
    /// A bucket or an ingest queue.
    #[error("{what}: {why}")]
    Other {
        /// Which.
        what: String,
        /// The emulator's answer.
        why: String,
    },
}

impl ProvisionError {
    fn other(what: String, why: &dyn Display) -> Self {
        Self::Other {
            what,
            why: why.to_string(),
        }
    }
}

impl Emulator {
    /// Applies the blueprint here, exactly as `trommel provision` does on AWS.
    ///
    /// # Errors
    /// Names what could not be made.
    pub async fn apply(&self, blueprint: &Blueprint) -> Result<(Clients, Found), ProvisionError> {
        let clients = self.clients().await;
        let found = blueprint.apply(&clients).await?;
        Ok((clients, found))
    }

    /// Makes a bucket, if it is not there.
    ///
    /// # Errors
    /// The emulator's answer.
    pub async fn bucket(&self, clients: &Clients, name: &str) -> Result<(), ProvisionError> {
        let made = clients.s3.create_bucket().bucket(name).send().await;
        match made {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("BucketAlreadyOwnedByYou") => Ok(()),
            Err(error) => Err(ProvisionError::other(
                format!("bucket `{name}`"),
                &DisplayErrorContext(error),
            )),
        }
    }

    /// Makes a plain queue, as a user's ingest queue is.
    ///
    /// # Errors
    /// The emulator's answer.
    pub async fn queue(&self, clients: &Clients, name: &str) -> Result<(), ProvisionError> {
        let made = clients.sqs.create_queue().queue_name(name).send().await;
        made.map_err(|error| {
            ProvisionError::other(format!("queue `{name}`"), &DisplayErrorContext(error))
        })?;
        Ok(())
    }
}
