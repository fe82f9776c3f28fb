//! The `trommel-sim` program: `run`, `replay`, `explore`, `check`, `bench`.

fn main() -> std::process::ExitCode {
    trommel_simulator::cli::main()
}
