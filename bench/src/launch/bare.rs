//! The floor: `posix_spawn` with a session of its own for each child, so many in flight, and nothing else.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::time::Instant;

use super::{Started, failed, tell};
use crate::case::{Outcome, Task};

/// glibc's; the libc crate does not have it.
const POSIX_SPAWN_SETSID: libc::c_short = 0x80;

pub(super) fn measure(task: &Task, started: Started) -> Outcome {
    let program = started.program(task)?;
    let program = CString::new(program.as_os_str().as_bytes()).expect("a path without NUL");
    let launches = started.launches(task);
    let before = own_time();
    let begin = Instant::now();
    let (mut begun, mut ended) = (0, 0);
    while ended < launches {
        while begun < launches && begun - ended < u32::try_from(task.threads).expect("a few") {
            spawn(&program).map_err(failed)?;
            begun += 1;
        }
        let mut status = 0;
        // SAFETY: writes a number. All children are this loop's.
        let waited = unsafe { libc::wait(&raw mut status) };
        if waited < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        assert_eq!(status, 0, "it succeeds");
        ended += 1;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let after = own_time();
    tell(
        task,
        seconds,
        [after[0] - before[0], after[1] - before[1]],
        launches,
    )
}

fn spawn(program: &CString) -> io::Result<()> {
    let checked = |error| match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    };
    // SAFETY: plain data that init below fills in; all-zero is a valid value of it.
    let mut attributes: libc::posix_spawnattr_t = unsafe { std::mem::zeroed() };
    // SAFETY: points to memory of the right type.
    checked(unsafe { libc::posix_spawnattr_init(&raw mut attributes) })?;
    // SAFETY: initialised.
    checked(unsafe { libc::posix_spawnattr_setflags(&raw mut attributes, POSIX_SPAWN_SETSID) })?;
    let arguments = [program.as_ptr().cast_mut(), ptr::null_mut()];
    let mut pid = 0;
    // SAFETY: strings end in NUL and lists in a null pointer, the environment's as the C library keeps
    // it; all outlive the call.
    let spawned = checked(unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            ptr::null(),
            &raw const attributes,
            arguments.as_ptr(),
            environ.cast(),
        )
    });
    // SAFETY: initialised, and not used after this.
    unsafe { libc::posix_spawnattr_destroy(&raw mut attributes) };
    spawned
}

unsafe extern "C" {
    static environ: *const *mut libc::c_char;
}

/// User and system time of this process, in seconds.
fn own_time() -> [f64; 2] {
    // SAFETY: plain data; all-zero is a valid value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: writes to memory of the right type.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    [usage.ru_utime, usage.ru_stime].map(|time| {
        #[expect(clippy::cast_precision_loss, reason = "seconds of a benchmark")]
        let seconds = time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        seconds
    })
}
