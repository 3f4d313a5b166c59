//! Which version of whom was measured.
//!
//! For a crate it is what Cargo.lock said when this was built; for a compiler, what it says itself.

use std::process::Command;

const LOCK: &str = include_str!("../../Cargo.lock");

/// The version of the peer that a contender's name begins with; none for those that have none, such as
/// plain threads.
pub(crate) fn of(contender: &str) -> Option<String> {
    let peer = contender.split_whitespace().next()?;
    match peer {
        "channel" => locked("crossbeam-channel"),
        "openmp" => first_line("cc").map(|line| line.replace("cc ", "gcc ")),
        peer => locked(peer),
    }
}

fn locked(name: &str) -> Option<String> {
    let package = format!("name = \"{name}\"");
    let mut lines = LOCK.lines().skip_while(|line| *line != package);
    let version = lines.nth(1)?.strip_prefix("version = ")?;
    Some(version.trim_matches('"').to_owned())
}

/// What a program says first about its version.
pub(crate) fn first_line(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Role;

    /// Contenders that are written here, with the standard library alone.
    const OURSELVES: [&str; 5] = ["serial", "threads", "condvar", "park", "openmp"];

    #[test]
    fn every_peer_that_is_a_crate_has_a_version() {
        for case in crate::forkjoin::cases() {
            for contender in &case.contenders {
                let peer = contender.name.split_whitespace().next().expect("a name");
                if contender.role == Role::Floor || OURSELVES.contains(&peer) {
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
}
