//! The `trommel` program, built with everything, for the tests of the command line.

fn main() -> std::process::ExitCode {
    trommel::cli::main()
}
