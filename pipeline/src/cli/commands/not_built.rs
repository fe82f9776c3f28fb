//! The commands on AWS in a build that has none: each says so.
#![expect(clippy::unused_async, reason = "the build with AWS awaits here")]

use crate::cli::args::{DoctorArgs, Global, ProvisionArgs, ReconcileArgs};
use crate::cli::error::{CliError, ErrorCode};
use crate::cli::exit::Exit;

pub(super) mod provision {
    use super::{CliError, Exit, Global, ProvisionArgs, not_built};

    pub(in crate::cli) async fn provision(_: &Global, _: ProvisionArgs) -> Result<Exit, CliError> {
        Err(not_built())
    }
}

pub(super) mod doctor {
    use super::{CliError, DoctorArgs, Exit, Global, not_built};

    pub(in crate::cli) async fn doctor(_: &Global, _: DoctorArgs) -> Result<Exit, CliError> {
        Err(not_built())
    }
}

pub(super) mod reconcile {
    use super::{CliError, Exit, Global, ReconcileArgs, not_built};

    pub(in crate::cli) async fn reconcile(_: &Global, _: ReconcileArgs) -> Result<Exit, CliError> {
        Err(not_built())
    }
}

fn not_built() -> CliError {
    CliError::new(ErrorCode::NotYet, "this trommel was built without AWS")
        .hinted("build it with `cargo build --release --features aws`")
}
