//! The contracts of the ports, run against their AWS adapters on an emulator.

use std::io::{self, Write as _};

use trommel_localstack::{Emulator, Stage};

/// The emulator of this test process; or, with `TROMMEL_TEST_ENDPOINT=none`, a loud word about what is
/// left out. No endpoint is a failure.
pub(crate) async fn emulator(left_out: &str) -> Option<&'static Emulator> {
    match Stage::find().await {
        Ok(Stage::On(emulator)) => Some(emulator),
        Ok(Stage::None) => {
            // Past the harness, which would keep the words of a test that passes to itself.
            let said = writeln!(
                io::stderr(),
                "LEFT OUT (TROMMEL_TEST_ENDPOINT=none): {left_out}"
            );
            said.expect("the words must not get lost");
            None
        }
        Err(reason) => panic!("{reason}"),
    }
}
