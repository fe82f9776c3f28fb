//! The `trommel` program.

fn main() -> std::process::ExitCode {
    share_one_heap();
    trommel::cli::main()
}

/// Items are read on one thread and dropped on another. With a heap a thread, as glibc has it, each heap stays as
/// large as it ever was, and a long run takes more memory than a short one.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "glibc's allocator is set by this call, or by the environment that started the program"
)]
fn share_one_heap() {
    // SAFETY: it sets a number of the allocator, and no other thread runs yet.
    unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn share_one_heap() {}
