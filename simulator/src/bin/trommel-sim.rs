//! The program: see `trommel-sim --help`.

/// A scenario makes some ten thousand small rows, messages and tasks: a third of its time is theirs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    trommel_simulator::cli::main()
}
