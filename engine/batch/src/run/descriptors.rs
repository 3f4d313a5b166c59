//! How many attempts at once the limit on open files has room for.
//!
//! The limit is not raised: what reiver starts would inherit that, and programs that still use
//! `select` break above 1,024.

use std::fs;
use std::io;
use std::sync::{Condvar, Mutex, PoisonError};

/// What an attempt holds while it runs: its leader, two pipes, and a file for output that is too
/// long for memory.
const HELD: usize = 4;
/// What starting one, or looking through `/proc`, takes for a moment besides: the other ends of the
/// pipes, a file for each stream.
const FOR_A_MOMENT: usize = 5;
/// For zygotes.
const ZYGOTES: usize = 2;
/// What not even one attempt can do without.
const LEAST: usize = HELD + FOR_A_MOMENT + ZYGOTES;
/// What a run opens before its first attempt, and after it was asked whether there is room: its journal
/// and that one's lock, the lock of its cgroups, and what jobs read that are given nothing.
const TO_BEGIN: usize = 4;
/// More at once start nothing sooner.
const MOST_TURNS: usize = 16;
/// For the run itself and whoever reports.
const SPARE: usize = 8;
/// For zygotes, and for the one process that they start at a time.
const FOR_ZYGOTES: usize = ZYGOTES + 2 + FOR_A_MOMENT;

/// What there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Attempts at once.
    pub(super) attempts: usize,
    /// How many of them may do at once what takes descriptors for a moment.
    turns: usize,
    /// The limit itself.
    pub(super) limit: usize,
}

/// Whether a run can begin, asked before its journal is.
///
/// # Errors
/// Where the limit on open files leaves no room for a job.
pub(crate) fn check_room() -> io::Result<()> {
    Room::of_process_but(TO_BEGIN).map(drop)
}

impl Room {
    /// The room that this process has.
    ///
    /// # Errors
    /// Where that is none.
    pub(super) fn of_process() -> io::Result<Room> {
        Room::of_process_but(0)
    }

    /// The room that this process has once so many descriptors more are open.
    ///
    /// # Errors
    /// Where that is none.
    fn of_process_but(more: usize) -> io::Result<Room> {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: writes to memory of the right type.
        let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let limit = usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX);
        let open = open_below(limit) + more;
        if limit < open.saturating_add(LEAST) {
            return Err(io::Error::other(format!(
                "the limit on open files is {limit}, which leaves no room for a job; raise it with \
                 `ulimit -n`"
            )));
        }
        Ok(Room::within(limit, open))
    }

    fn within(limit: usize, open: usize) -> Room {
        let free = limit.saturating_sub(open + SPARE + FOR_ZYGOTES);
        let turns = (free / (4 * FOR_A_MOMENT)).clamp(1, MOST_TURNS);
        let attempts = free.saturating_sub(turns * FOR_A_MOMENT) / HELD;
        Room {
            attempts: attempts.max(1),
            turns,
            limit,
        }
    }
}

/// How many descriptors are open that count against the limit, which is on their numbers: those above
/// were opened before it was set.
fn open_below(limit: usize) -> usize {
    let entries = match fs::read_dir("/proc/self/fd") {
        Ok(entries) => entries,
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) => return limit,
        Err(_) => return 0,
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let open = numbers.filter(|&number: &usize| number < limit).count();
    // One of them is open to look.
    open.saturating_sub(1)
}

/// Lets so many at a time do what takes descriptors for a moment.
#[derive(Debug)]
pub(super) struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Turns {
    pub(super) fn new(room: Room) -> Turns {
        Turns {
            free: Mutex::new(room.turns),
            freed: Condvar::new(),
        }
    }

    /// Calls `code` if it may begin at once.
    pub(super) fn try_take(&self, code: impl FnOnce()) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if *free > 0 {
            *free -= 1;
            drop(free);
            self.end_turn(code);
        }
    }

    /// Calls `code` when it is its turn.
    pub(super) fn take<R>(&self, code: impl FnOnce() -> R) -> R {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.freed.wait_while(free, |free| *free == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        self.end_turn(code)
    }

    fn end_turn<R>(&self, code: impl FnOnce() -> R) -> R {
        let result = code();
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.freed.notify_one();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_room_for_one_and_never_for_more_than_the_limit() {
        for limit in [0, 8, 16, 32, 64, 256, 1024, 4096, 1 << 20, usize::MAX] {
            let room = Room::within(limit, 12);
            assert!(room.attempts >= 1 && room.turns >= 1);
            let most = room.attempts.saturating_mul(HELD) + room.turns * FOR_A_MOMENT;
            assert!(
                limit < 48 || most + 12 + SPARE + FOR_ZYGOTES <= limit,
                "{room:?}"
            );
        }
        assert_eq!(Room::within(1024, 12).attempts, 228);
    }
}
