//! Places in buckets, and directories.

use super::{Check, refused};
use crate::adapters::aws::classify::Fault;
use crate::adapters::aws::config::Clients;
use crate::core::job::Location;

/// Lists one key: what all that reads or writes there must be able to do first.
pub(super) async fn examine(clients: &Clients, what: &str, place: &Location) -> Check {
    match place {
        Location::S3 { bucket, key } => {
            let what = format!("{what} s3://{bucket}/{key}");
            let ask = clients.s3.list_objects_v2().bucket(bucket).prefix(key);
            match ask.max_keys(1).send().await {
                Ok(_) => Check::ok(what, "can be listed"),
                Err(error) => refused(what, &Fault::of(&error)),
            }
        }
        Location::Path(path) => {
            let what = format!("{what} {}", path.display());
            let is_near = path.exists() || path.parent().is_some_and(std::path::Path::exists);
            if is_near {
                return Check::ok(what, "on this machine");
            }
            let help = "make the directory above it, or name another place";
            Check::fail(what, "is not there, and neither is what it lies in", help)
        }
    }
}
