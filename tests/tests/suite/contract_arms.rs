//! The contracts on every implementation that needs no service.

use std::sync::Arc;

use tempfile::TempDir;
use trommel::adapters::directory::Directory;
use trommel::adapters::memory::{EMBEDDED_PROFILE, MemoryObjects, MemoryQueue, MemoryTable};
use trommel::adapters::sqlite::{Access, SqliteLedger};
use trommel::ports::table::TableProfile;
use trommel::ports::{Objects, Queue, Table};
use trommel_tests::contract::{MachineClock, Stage};

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn ledger(directory: &TempDir) -> SqliteLedger {
    let path = directory.path().join("ledger.db");
    SqliteLedger::open(&path, Access::Write, MachineClock::start()).expect("a new ledger")
}

mod sqlite_table {
    use super::*;

    async fn stage() -> Stage<dyn Table> {
        let directory = directory();
        Stage::new(Arc::new(ledger(&directory).table()), directory)
    }

    trommel_tests::table_contract!(stage());
}

mod sqlite_queue {
    use super::*;

    async fn stage() -> Stage<dyn Queue> {
        let directory = directory();
        Stage::new(Arc::new(ledger(&directory).queue("contract")), directory)
    }

    trommel_tests::queue_contract!(stage());
}

mod memory_table {
    use super::*;

    async fn stage() -> Stage<dyn Table> {
        Stage::new(Arc::new(MemoryTable::new(EMBEDDED_PROFILE)), ())
    }

    trommel_tests::table_contract!(stage());
}

/// What the DynamoDB Local of 2020 allows.
mod memory_table_of_small_transactions {
    use super::*;

    async fn stage() -> Stage<dyn Table> {
        let profile = TableProfile {
            transact_writes_max: 10,
            ..EMBEDDED_PROFILE
        };
        Stage::new(Arc::new(MemoryTable::new(profile)), ())
    }

    trommel_tests::table_contract!(stage());
}

mod memory_queue {
    use super::*;

    async fn stage() -> Stage<dyn Queue> {
        Stage::new(Arc::new(MemoryQueue::new(MachineClock::start())), ())
    }

    trommel_tests::queue_contract!(stage());
}

mod memory_objects {
    use super::*;

    async fn stage() -> Stage<dyn Objects> {
        Stage::new(Arc::new(MemoryObjects::new()), ())
    }

    trommel_tests::objects_contract!(stage());
}

mod directory_objects {
    use super::*;

    async fn stage() -> Stage<dyn Objects> {
        let directory = directory();
        Stage::new(Arc::new(Directory::new(directory.path())), directory)
    }

    trommel_tests::objects_contract!(stage());
}
