//! A process that leads a session of its own and starts as from a shell.
//!
//! As `posix_spawn` does it: by a `clone` that shares this process's memory and holds the calling thread
//! up until the child executes, so it costs the same whatever this process's size. What is different:
//! the stack that the child runs on is its thread's and kept (one that comes and goes with each child has
//! the kernel interrupt our other threads' CPUs), and the child comes with a handle.
//!
//! What the child does before it executes touches no lock and no allocator, for the thread that it is a
//! copy of may have been anywhere with any of them held by others. It starts with all signals
//! blocked, so that no handler of ours runs in it; by the time that they are let in, all are at
//! their defaults.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::io;
use std::mem::size_of;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::brand::Brand;
use super::process::{self, Pid};

/// What a process is to be.
#[derive(Debug)]
pub(super) struct Child<'a> {
    pub(super) program: &'a CStr,
    pub(super) arguments: &'a Strings<'a>,
    pub(super) environment: &'a Strings<'a>,
    /// Where it starts.
    pub(super) folder: &'a CStr,
    /// Its input, output and error output.
    pub(super) streams: [RawFd; 3],
    /// What it inherits besides, under the same numbers. All else is closed.
    pub(super) inherited: &'a [RawFd],
    /// By which it is known, and all that it starts.
    pub(super) brand: Option<Brand>,
}

/// The list that C wants: pointers, and a null one after them.
#[derive(Debug)]
pub(super) struct Strings<'a> {
    pointers: Vec<*const c_char>,
    _strings: std::marker::PhantomData<&'a CStr>,
}

impl<'a> Strings<'a> {
    pub(super) fn new(strings: impl Iterator<Item = &'a CStr>) -> Strings<'a> {
        let at_most = strings.size_hint().1.unwrap_or(0);
        let mut pointers = Vec::with_capacity(at_most + 1);
        pointers.extend(strings.map(CStr::as_ptr).chain([ptr::null()]));
        Strings {
            pointers,
            _strings: std::marker::PhantomData,
        }
    }
}

/// A process that was started.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) pid: Pid,
    /// Ready to be read once it has ended; none where the system gives none.
    pub(super) end: Option<OwnedFd>,
}

/// Starts a process.
///
/// # Errors
/// The system's, of whatever of it failed; then there is none.
pub(super) fn spawn(child: &Child<'_>) -> io::Result<Spawned> {
    STACK.with(|stack| {
        let stack = stack.get_or_init(Stack::new);
        let stack = stack
            .as_ref()
            .map_err(|&error| io::Error::from_raw_os_error(error))?;
        spawn_on(stack, child)
    })
}

/// Children that are being started have all descriptors of this process until they execute: who is
/// surprised that something is held open looks here.
static EXECUTING: Mutex<Children> = Mutex::new(Children {
    begun: 0,
    executing: Vec::new(),
});

struct Children {
    /// So many were begun ever.
    begun: u64,
    /// The numbers of those that have not executed.
    executing: Vec<u64>,
}

/// One child, until it has executed or ended.
struct Executing(u64);

/// All children that were begun up to some moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun(u64);

fn children() -> MutexGuard<'static, Children> {
    EXECUTING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Executing {
    fn begin() -> Executing {
        let mut children = children();
        children.begun += 1;
        let number = children.begun;
        children.executing.push(number);
        Executing(number)
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        children().executing.retain(|&number| number != self.0);
    }
}

impl Begun {
    /// Up to now.
    pub(super) fn so_far() -> Begun {
        Begun(children().begun)
    }

    /// True once none of them has descriptors that it was not given.
    pub(super) fn have_executed(self) -> bool {
        children().executing.iter().all(|&number| number > self.0)
    }
}

/// What the child is given, and what it leaves.
struct Shared<'a> {
    child: &'a Child<'a>,
    /// Why it could not execute; 0 if it could.
    error: AtomicI32,
}

fn spawn_on(stack: &Stack, child: &Child<'_>) -> io::Result<Spawned> {
    let shared = Shared {
        child,
        error: AtomicI32::new(0),
    };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let _executing = Executing::begin();
    let blocked = Blocked::all()?;
    let mut end: c_int = -1;
    let mut pid = clone(stack, flags | libc::CLONE_PIDFD, &shared, &mut end);
    // No kernel of 5.4 or later refuses a handle, but some sandbox may.
    if let Err(error) = &pid
        && error.raw_os_error() == Some(libc::EINVAL)
    {
        pid = clone(stack, flags, &shared, &mut end);
    }
    drop(blocked);
    let pid = pid?;
    // SAFETY: a number that the kernel put there is a new descriptor and nobody else's.
    let end = (end >= 0).then(|| unsafe { OwnedFd::from_raw_fd(end) });
    // Relaxed: the child wrote it in this thread's place, which went on only once it was gone.
    match shared.error.load(Ordering::Relaxed) {
        0 => Ok(Spawned { pid, end }),
        error => {
            // It has ended, and nobody was told its number.
            let _ = process::reap(pid);
            Err(io::Error::from_raw_os_error(error))
        }
    }
}

/// Has a child run [`execute`] on this stack; returns once it has executed its program or ended.
fn clone(stack: &Stack, flags: c_int, shared: &Shared<'_>, end: &mut c_int) -> io::Result<Pid> {
    let argument = ptr::from_ref(shared).cast_mut().cast::<c_void>();
    // SAFETY: the stack is mapped, of this thread alone, and nobody else is on it: this thread goes on
    // only once the child has left it. `shared` outlives the child's use of it for the same reason. The
    // child gets this thread's thread-local words and writes none but `errno`, as the thread itself
    // would in a call. `end` takes a number where a handle is asked for, and is passed over otherwise.
    let pid = unsafe { libc::clone(execute, stack.top(), flags, argument, ptr::from_mut(end)) };
    if pid < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(pid)
    }
}

/// The child: it executes or, where that fails, leaves the error and ends.
///
/// It calls the kernel and nothing else: it neither allocates nor locks nor panics, and runs no code of
/// others.
extern "C" fn execute(shared: *mut c_void) -> c_int {
    // SAFETY: it was made of such a reference, whose owner waits.
    let shared = unsafe { &*shared.cast::<Shared<'_>>() };
    let Err(error) = try_to_execute(shared.child);
    // Relaxed: as where it is read.
    shared.error.store(error, Ordering::Relaxed);
    // SAFETY: ends the child alone, without running anybody's code at exit.
    unsafe { libc::_exit(127) }
}

enum Never {}

/// The number of the error.
fn try_to_execute(child: &Child<'_>) -> Result<Never, c_int> {
    // SAFETY: no arguments. It leads no group yet, so it is not refused.
    checked(unsafe { libc::setsid() })?;
    set_default_signals();
    for (target, &stream) in (0..).zip(&child.streams) {
        give(stream, target)?;
    }
    for &fd in child.inherited {
        give(fd, fd)?;
    }
    close_all_but(child.inherited);
    // Late, for it may hang, and then holds nobody's pipes.
    // SAFETY: the text ends in NUL and lives.
    checked(unsafe { libc::chdir(child.folder.as_ptr()) })?;
    if let Some(brand) = child.brand {
        brand.take_on();
    }
    set_mask(&Mask(0)).map_err(|_| errno())?;
    // SAFETY: the text ends in NUL, the lists in a null pointer, and all of them live.
    unsafe {
        libc::execve(
            child.program.as_ptr(),
            child.arguments.pointers.as_ptr(),
            child.environment.pointers.as_ptr(),
        );
    }
    Err(errno())
}

/// Has a descriptor outlive the execution, under this number.
fn give(from: RawFd, to: RawFd) -> Result<(), c_int> {
    let result = if from == to {
        // SAFETY: sets flags of a descriptor; no memory is passed.
        unsafe { libc::syscall(libc::SYS_fcntl, from, libc::F_SETFD, 0) }
    } else {
        // SAFETY: takes numbers; whatever was at the target is the child's copy.
        c_long::from(unsafe { libc::dup2(from, to) })
    };
    checked(result)
}

/// Closes what is neither a stream nor among these.
///
/// It would close itself, but only after the kernel has let our thread go on, and who waits for the end of
/// a pipe would then find it held by nobody that is known. A kernel before 5.9 cannot, nor can some
/// sandboxes: then that is how it is.
fn close_all_but(inherited: &[RawFd]) {
    let mut first = 3;
    loop {
        let next = inherited.iter().copied().filter(|&fd| fd >= first).min();
        if next != Some(first) {
            let last = next.map_or(c_int::MAX, |next| next - 1);
            // SAFETY: closes the child's copies, which nothing in it uses any more.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
        match next {
            Some(next) => first = next + 1,
            None => return,
        }
    }
}

fn checked(result: impl Into<c_long>) -> Result<(), c_int> {
    if result.into() < 0 {
        Err(errno())
    } else {
        Ok(())
    }
}

fn errno() -> c_int {
    // A number and no allocation; 0 it never is, for the call has failed.
    io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

/// The kernel's signal numbers end here.
const SIGNALS: c_int = 64;

/// As the kernel takes it: a bit a signal, the first at the lowest. The C library's own calls leave out
/// two signals that it keeps for itself.
#[repr(transparent)]
struct Mask(u64);

/// As the kernel takes it, all zero for the default action; the first word is the handler.
#[repr(C)]
struct Action([usize; 4]);

/// What a terminal, and others who mean a whole group, send to this process and its children.
const FOR_GROUPS: [c_int; 5] = [
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGHUP,
    libc::SIGTERM,
    libc::SIGTSTP,
];

/// Puts all signals of this process at their defaults, those that are ignored among them. What was sent to
/// our group while it was of it, and waits since, is none of the child's business: to be ignored for a
/// moment does away with it.
fn set_default_signals() {
    for signal in FOR_GROUPS {
        set_action(signal, &Action([libc::SIG_IGN, 0, 0, 0]));
    }
    for signal in 1..=SIGNALS {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            set_action(signal, &Action([0; 4]));
        }
    }
}

fn set_action(signal: c_int, action: &Action) {
    // SAFETY: the kernel reads an action, which is as large as the largest of any machine's. It refuses
    // none of these signals.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            ptr::from_ref(action),
            ptr::null_mut::<Action>(),
            size_of::<Mask>(),
        )
    };
}

/// Blocks these signals for the current thread, and no others; what was blocked before.
fn set_mask(mask: &Mask) -> io::Result<Mask> {
    let mut before = Mask(0);
    // SAFETY: the kernel reads one mask and writes one, of the size that is said.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            ptr::from_ref(mask),
            ptr::from_mut(&mut before),
            size_of::<Mask>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(before)
    }
}

/// All signals are blocked for the current thread until this is dropped.
struct Blocked(Mask);

impl Blocked {
    fn all() -> io::Result<Blocked> {
        set_mask(&Mask(u64::MAX)).map(Blocked)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // It was taken when it was other.
        let _ = set_mask(&self.0);
    }
}

thread_local! {
    /// What this thread's children run on until they execute; an error's number where there is none.
    static STACK: std::cell::OnceCell<Result<Stack, c_int>> = const { std::cell::OnceCell::new() };
}

/// Memory for a stack, with a page below that must not be touched.
struct Stack(*mut c_void);

/// A child takes less than a page; the C library reserves 32 KiB.
const STACK_BYTES: usize = 64 * 1024;
/// At least a page of any machine.
const GUARD_BYTES: usize = 64 * 1024;

impl Stack {
    fn new() -> Result<Stack, c_int> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: new memory, wherever the kernel puts it.
        let memory = unsafe {
            let bytes = STACK_BYTES + GUARD_BYTES;
            libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0)
        };
        if memory == libc::MAP_FAILED {
            return Err(errno());
        }
        let stack = Stack(memory);
        // SAFETY: the lower part of what was just mapped, which nobody uses.
        checked(unsafe { libc::mprotect(memory, GUARD_BYTES, libc::PROT_NONE) })?;
        Ok(stack)
    }

    /// Where it begins: it grows downwards.
    fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of what is mapped.
        unsafe { self.0.byte_add(STACK_BYTES + GUARD_BYTES) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and no child is on it: one that is holds its thread up.
        unsafe { libc::munmap(self.0, STACK_BYTES + GUARD_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::thread;

    use super::*;
    use crate::event::LeaderEnd;

    fn start(line: &CStr, folder: &CStr, out: RawFd, inherited: &[RawFd]) -> io::Result<Spawned> {
        let null = File::open("/dev/null")?;
        spawn(&Child {
            program: c"/bin/sh",
            arguments: &Strings::new([c"sh", c"-c", line].into_iter()),
            environment: &Strings::new([c"PATH=/usr/bin:/bin", c"WORD=one two"].into_iter()),
            folder,
            streams: [null.as_raw_fd(), out, null.as_raw_fd()],
            inherited,
            brand: None,
        })
    }

    /// What a shell prints that starts in `/proc`.
    fn said(line: &CStr, inherited: &[RawFd]) -> String {
        let (mut reader, writer) = io::pipe().unwrap();
        let started = start(line, c"/proc", writer.as_raw_fd(), inherited).unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(process::reap(started.pid).unwrap(), LeaderEnd::Exited(0));
        text
    }

    #[test]
    fn a_child_starts_as_from_a_shell_whatever_its_thread_blocks() {
        // SAFETY: no handler of anybody's is taken away.
        unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
        let blocks = Mask(1 << (libc::SIGTERM - 1) | 1 << (libc::SIGRTMIN() - 1));
        set_mask(&blocks).unwrap();
        let text = said(c"grep -E '^Sig(Blk|Ign)' self/status", &[]);
        let masks: Vec<&str> = text.split_whitespace().collect();
        let none = "0000000000000000";
        assert_eq!(masks, ["SigBlk:", none, "SigIgn:", none]);
        assert_eq!(
            set_mask(&Mask(0)).unwrap().0,
            blocks.0,
            "the thread's own is what it was"
        );
        // It leads a session, stands in its folder, and has the environment that it was given.
        let text = said(
            c"echo $(pwd) $WORD ${HOME-none}; read pid name state parent group session rest <self/stat; \
              [ $$ = $group ] && [ $$ = $session ] && echo leads",
            &[],
        );
        assert_eq!(text, "/proc one two none\nleads\n");
    }

    #[test]
    fn a_child_has_its_streams_and_what_it_inherits_and_no_more() {
        let (kept, other) = (
            File::open("/dev/zero").unwrap(),
            File::open("/dev/full").unwrap(),
        );
        // SAFETY: sets flags of a descriptor of ours.
        let result = unsafe { libc::fcntl(other.as_raw_fd(), libc::F_SETFD, 0) };
        assert_eq!(result, 0, "who does not close itself is closed too");
        let line = c"readlink self/fd/* | grep -E 'zero|full'";
        let said = said(line, &[kept.as_raw_fd()]);
        // The shell's own, and what it hands on to who looks.
        assert_eq!(said, "/dev/zero\n", "{}", other.as_raw_fd());
        let flags = fs::read_to_string(format!("/proc/self/fdinfo/{}", kept.as_raw_fd())).unwrap();
        let flags = flags
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .unwrap();
        let flags = c_int::from_str_radix(flags.trim(), 8).unwrap();
        assert_ne!(
            flags & libc::O_CLOEXEC,
            0,
            "ours is closed for all others still"
        );
    }

    #[test]
    fn what_cannot_be_executed_is_told_and_leaves_no_child() {
        let error = |program: &CStr, folder: &CStr| {
            let null = File::open("/dev/null").unwrap();
            let streams = [null.as_raw_fd(); 3];
            let none = || Strings::new([].into_iter());
            let started = spawn(&Child {
                program,
                arguments: &none(),
                environment: &none(),
                folder,
                streams,
                inherited: &[],
                brand: None,
            });
            started.unwrap_err().raw_os_error().unwrap()
        };
        assert_eq!(error(c"/nowhere", c"/"), libc::ENOENT);
        assert_eq!(error(c"/proc", c"/"), libc::EACCES);
        assert_eq!(error(c"/bin/sh", c"/nowhere"), libc::ENOENT);
        assert_eq!(error(c"/bin/sh", c"/dev/null"), libc::ENOTDIR);
        // SAFETY: no arguments.
        let thread = unsafe { libc::gettid() };
        // Those that this thread has started; a kernel may be built without it.
        match fs::read_to_string(format!("/proc/self/task/{thread}/children")) {
            Ok(children) => assert_eq!(children, "", "all were reaped"),
            Err(error) => eprintln!("skipped: {error}"),
        }
    }

    #[test]
    fn threads_start_children_at_once_and_end_without_leaving_their_stacks() {
        // Nobody else's guard is as long.
        let is_guard = |line: &str| {
            let (range, rest) = line.split_once(' ').unwrap();
            let (first, end) = range.split_once('-').unwrap();
            let address = |hex| usize::from_str_radix(hex, 16).unwrap();
            rest.starts_with("---p") && address(end) - address(first) == GUARD_BYTES
        };
        let stacks = || {
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            maps.lines().filter(|line| is_guard(line)).count()
        };
        let start_some = || {
            for _ in 0..25 {
                let null = File::options().write(true).open("/dev/null").unwrap();
                let started = start(c"exit 7", c"/", null.as_raw_fd(), &[]).unwrap();
                let end = started.end.expect("a kernel of 5.4 gives a handle");
                let mut fds = [libc::pollfd {
                    fd: end.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                }];
                super::super::watch::poll(&mut fds, None);
                assert_eq!(fds[0].revents, libc::POLLIN);
                assert_eq!(process::reap(started.pid).unwrap(), LeaderEnd::Exited(7));
            }
        };
        let round = || {
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(start_some);
                }
            });
        };
        round();
        let before = stacks();
        for _ in 0..10 {
            round();
        }
        // Forty threads have ended; tests beside this one have stacks of theirs.
        assert!(stacks() < before + 20, "{before} and {}", stacks());
    }
}
