//! How many heaps the system's allocator keeps.
//!
//! glibc makes up to eight heaps a core, one for each thread that comes, and gives little of them back. Epochs are encoded
//! on whatever thread is free, so each heap grows to the size of an epoch: up to a fifth more memory than the
//! configuration states (`bench memory`). The number is read from the environment before a program's first line, so the
//! only way to set it from within is to begin again.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// glibc's variable; an operator's own value stays.
const VARIABLE: &str = "MALLOC_ARENA_MAX";

/// One for each of two cores; on more the threads share them, which costs less than what the heaps would hold.
const HEAPS: &str = "2";

/// glibc's variables for the size from which a block has pages of its own, which go back to the system as soon as it is
/// freed, and for what a heap may keep free at its end. Left alone the first grows to 32 MiB by itself; then the buffers
/// of whole epochs stay in the heaps between small blocks, and a node under pressure grows for minutes. Too small a one is
/// dear: the buffers of a group of records and of a Parquet page, which come and go a hundred times a second, would take
/// fresh pages from the system each time (a third of the CPU time of `bench ingest` at 256 KiB).
const KEPT: [(&str, &str); 2] = [("MALLOC_MMAP_THRESHOLD_", "4194304"), ("MALLOC_TRIM_THRESHOLD_", "16777216")];

/// Begins the program again with few heaps, once, as the same process. Where that is not possible it goes on as it is.
pub fn bound() {
    if cfg!(not(all(target_os = "linux", target_env = "gnu"))) || std::env::var_os(VARIABLE).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    // `exec` comes back only with an error, and then nothing has changed.
    let _ = Command::new(&program)
        .arg0(name.as_deref().unwrap_or(OsStr::new("lakefeed")))
        .args(arguments)
        .env(VARIABLE, HEAPS)
        .envs(KEPT)
        .exec();
}
