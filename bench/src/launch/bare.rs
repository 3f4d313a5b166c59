//! The floor: `posix_spawn` with a session of its own for each child, so many in flight,
//! and what it writes read where that is asked for.

use std::ffi::CString;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::time::Instant;

use super::{Started, failed, tell};
use crate::case::{Outcome, Task};

/// glibc's; the libc crate does not have it.
const POSIX_SPAWN_SETSID: libc::c_short = 0x80;

/// A child, and what it writes to.
struct Running {
    pid: libc::pid_t,
    streams: [PipeReader; 2],
}

/// Starts and waits for children; with `captures`, each has two pipes of its own that are read to their ends.
pub(super) fn measure(task: &Task, started: Started, captures: bool) -> Outcome {
    let program = started.program(task)?;
    let program = CString::new(program.as_os_str().as_bytes()).expect("a path without NUL");
    let launches = started.launches(task);
    let in_flight = u32::try_from(task.threads).expect("a few");
    let before = own_time();
    let begin = Instant::now();
    match captures {
        false => launch(&program, launches, in_flight),
        true => launch_captured(&program, launches, in_flight),
    }
    .map_err(failed)?;
    let seconds = begin.elapsed().as_secs_f64();
    let after = own_time();
    tell(
        task,
        seconds,
        [after[0] - before[0], after[1] - before[1]],
        launches,
    )
}

fn launch(program: &CString, launches: u32, in_flight: u32) -> io::Result<()> {
    let (mut begun, mut ended) = (0, 0);
    while ended < launches {
        while begun < launches && begun - ended < in_flight {
            spawn(program, &[])?;
            begun += 1;
        }
        // All children are this loop's.
        wait(-1)?;
        ended += 1;
    }
    Ok(())
}

fn launch_captured(program: &CString, launches: u32, in_flight: u32) -> io::Result<()> {
    let mut running: Vec<Running> = Vec::new();
    let mut begun = 0;
    loop {
        while begun < launches && running.len() < in_flight as usize {
            running.push(spawn_captured(program)?);
            begun += 1;
        }
        if running.is_empty() {
            return Ok(());
        }
        let mut fds: Vec<libc::pollfd> = running.iter().map(first_of).collect();
        // SAFETY: as many entries as are said.
        unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
        for place in (0..fds.len()).rev() {
            if fds[place].revents != 0 {
                let Running { pid, streams } = running.swap_remove(place);
                for mut stream in streams {
                    stream.read_to_end(&mut Vec::new())?;
                }
                wait(pid)?;
            }
        }
    }
}

/// Whatever is told of its output first is the end: these children print nothing.
fn first_of(running: &Running) -> libc::pollfd {
    libc::pollfd {
        fd: running.streams[0].as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }
}

fn spawn_captured(program: &CString) -> io::Result<Running> {
    let (stdout, stdout_writer) = io::pipe()?;
    let (stderr, stderr_writer) = io::pipe()?;
    let given = [
        (stdout_writer.as_raw_fd(), 1),
        (stderr_writer.as_raw_fd(), 2),
    ];
    let pid = spawn(program, &given)?;
    let streams = [stdout, stderr];
    Ok(Running { pid, streams })
}

/// Waits for a child, or for any.
fn wait(pid: libc::pid_t) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: writes a number.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    assert_eq!(status, 0, "it succeeds");
    Ok(())
}

fn checked(error: libc::c_int) -> io::Result<()> {
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Starts a child; it has each of these descriptors under that number.
fn spawn(program: &CString, given: &[(libc::c_int, libc::c_int)]) -> io::Result<libc::pid_t> {
    // SAFETY: plain data that init below fills in; all-zero is a valid value of it.
    let mut attributes: libc::posix_spawnattr_t = unsafe { std::mem::zeroed() };
    // SAFETY: as before.
    let mut actions: libc::posix_spawn_file_actions_t = unsafe { std::mem::zeroed() };
    // SAFETY: points to memory of the right type.
    checked(unsafe { libc::posix_spawnattr_init(&raw mut attributes) })?;
    // SAFETY: points to memory of the right type.
    checked(unsafe { libc::posix_spawn_file_actions_init(&raw mut actions) })?;
    // SAFETY: initialised.
    checked(unsafe { libc::posix_spawnattr_setflags(&raw mut attributes, POSIX_SPAWN_SETSID) })?;
    for &(from, to) in given {
        // SAFETY: initialised.
        checked(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut actions, from, to) })?;
    }
    let arguments = [program.as_ptr().cast_mut(), ptr::null_mut()];
    let mut pid = 0;
    // SAFETY: strings end in NUL and lists in a null pointer, the environment's as the C library keeps
    // it; all outlive the call.
    let spawned = checked(unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            &raw const actions,
            &raw const attributes,
            arguments.as_ptr(),
            environ.cast(),
        )
    });
    // SAFETY: initialised, and not used after this.
    unsafe { libc::posix_spawn_file_actions_destroy(&raw mut actions) };
    // SAFETY: as before.
    unsafe { libc::posix_spawnattr_destroy(&raw mut attributes) };
    spawned.map(|()| pid)
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
