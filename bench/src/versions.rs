//! Which version of whom was measured.
//!
//! For a crate it is what Cargo.lock said when this was built; for a compiler or a C library, what it says
//! itself.

use std::ffi::{CStr, c_int};
use std::process::Command;

const LOCK: &str = include_str!("../../Cargo.lock");

/// The version of the peer that a contender's name begins with; none for those that have none, such as
/// plain threads.
pub(crate) fn of(contender: &str) -> Option<String> {
    let peer = contender.split_whitespace().next()?;
    match peer {
        "channel" => locked("crossbeam-channel"),
        "openmp" => first_line("cc").map(|line| line.replace("cc ", "gcc ")),
        "onetbb" => said(Command::new("pkg-config").args(["--modversion", "tbb"])),
        "go" => said(Command::new("go").arg("version")),
        "glibc" => Some(glibc()),
        "make" | "xargs" | "parallel" | "ninja" => first_line(peer),
        "mimalloc" => locked(peer).map(|version| format!("{version} (of mimalloc {})", mimalloc())),
        peer => locked(peer),
    }
}

fn locked(name: &str) -> Option<String> {
    let package = format!("name = \"{name}\"");
    let mut lines = LOCK.lines().skip_while(|line| *line != package);
    let version = lines.nth(1)?.strip_prefix("version = ")?;
    Some(version.trim_matches('"').to_owned())
}

unsafe extern "C" {
    /// Of mimalloc, which the crate does not show.
    safe fn mi_version() -> c_int;
}

/// Mimalloc's own version, of which its number has two digits each for the minor and the patch.
fn mimalloc() -> String {
    let version = mi_version();
    format!(
        "{}.{}.{}",
        version / 10_000,
        version / 100 % 100,
        version % 100
    )
}

fn glibc() -> String {
    // SAFETY: it has no conditions.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: it is a string that stays.
    let version = unsafe { CStr::from_ptr(version) };
    version.to_string_lossy().into_owned()
}

/// What a program says first about its version.
pub(crate) fn first_line(program: &str) -> Option<String> {
    said(Command::new(program).arg("--version"))
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Role;

    /// Contenders that are written here, with the standard library alone.
    const OURSELVES: [&str; 5] = ["serial", "threads", "condvar", "park", "openmp"];
    /// Likewise, of the suites about pools and counters; and Go and oneTBB, which may be missing.
    const OTHERS: [&str; 6] = ["sync.Pool", "mmap", "one", "packed", "go", "onetbb"];

    #[test]
    fn every_peer_that_is_a_crate_has_a_version() {
        let others = [
            crate::pools::cases(),
            crate::counters::cases(),
            crate::numa::cases(),
        ]
        .concat();
        for case in [crate::forkjoin::cases(), others].concat() {
            for contender in &case.contenders {
                let peer = contender.name.split_whitespace().next().expect("a name");
                if contender.role == Role::Floor
                    || [&OURSELVES[..], &OTHERS].concat().contains(&peer)
                {
                    continue;
                }
                let version = of(contender.name);
                assert!(version.is_some(), "no version of {}", contender.name);
            }
        }
    }

    #[test]
    fn a_version_is_the_one_of_the_lock_file() {
        assert_eq!(of("chili").as_deref(), Some("0.2.1"));
        assert_eq!(of("nobody at all"), None);
    }

    #[test]
    fn mimalloc_is_the_third() {
        let version = of("mimalloc box").expect("it is locked");
        assert!(version.contains("of mimalloc 3."), "{version}");
    }

    #[test]
    fn glibc_says_its_version() {
        let version = of("glibc box").expect("it says so");
        assert!(version.starts_with("2."), "{version}");
    }
}
