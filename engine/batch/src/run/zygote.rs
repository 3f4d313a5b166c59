//! A process that starts others: what a thread cannot take on for a moment and leave again, a job's
//! process takes on between its fork and its program.
//!
//! That is a scheduling class without a way back, a session whose share of the CPUs is small, and a
//! cgroup. `posix_spawn` does none of them, and a fork of reiver itself would copy its page tables.
//! The zygote is small, has one thread, and forks with `CLONE_PARENT`: what it starts are children of
//! reiver's, to be watched and reaped as all others. Two kinds live while they are needed:
//!
//! - *plain*: each job leads a session of its own;
//! - *background*: jobs are process groups in the zygote's session. Where the kernel groups by session
//!   (autogroup), a group's share does not depend on the classes within it, and a user may change one
//!   group's share ten times a second at most; so there is one group, at the lowest share, for all.
//!
//! Requests and answers go over a socket, the streams of a job with its request. A zygote ends when
//! reiver does, however that ends. One may end itself, or be killed, at any moment, and no job is lost to
//! reiver, or started twice, by that: a process begins to be a job only once its number is on its way to
//! reiver, and ends by itself where the zygote ends before.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fs;
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use reiver::NodeId;
use reiver_topology::CpuSet;
use reiver_topology::place::{self, MemoryMode};

use super::brand::Brand;
use super::process::{self, Pid};

/// The arguments by which a program knows that it is to be one.
pub(super) const ARGUMENTS: [&CStr; 3] = [c"reiver", c"--zygote", c"reads its standard input"];
/// The longest that the share of a session is tried to be changed: others may be changing theirs, the kernel
/// lets a user do that once in 100 ms, and says nothing when that is over.
const PATIENCE: Duration = Duration::from_secs(5);
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// Requests beyond this are no requests; an environment is at most a part of it.
const LONGEST: usize = 64 << 20;

/// True once the program has said that it can be a zygote.
static CAN_SERVE: AtomicBool = AtomicBool::new(false);

/// Which kind of jobs one starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Background,
}

/// What is to be started, and how.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) program: CString,
    pub(super) arguments: Vec<CString>,
    pub(super) environment: Vec<CString>,
    pub(super) cwd: CString,
    /// Files that take the number of a process which is to belong to a cgroup.
    pub(super) cgroups: Vec<CString>,
    /// The CPUs to run on; empty for those of the zygote.
    pub(super) cpus: CpuSet,
    pub(super) memory: Option<(MemoryMode, Vec<NodeId>)>,
    /// The number of its brand; 0 for none.
    pub(super) brand: u64,
}

/// What did not work on the way to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It was not executed.
    Exec = 1,
    Cpus = 2,
    Memory = 3,
    Cgroup = 4,
    /// It runs with the scheduling class and nice value that reiver has.
    Schedule = 5,
}

type Troubles = Vec<(Trouble, io::Error)>;

/// A process that was started, with what it had to do without.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: Pid,
    pub(super) troubles: Troubles,
}

/// Why there is no process.
#[derive(Debug)]
pub(super) enum NotStarted {
    /// The system's reason why the program could not be executed.
    Refused(io::Error),
    /// The zygote was gone before anything was started.
    Gone(io::Error),
    /// The zygote ended before it has told whether the program was executed; the process was ended.
    Lost(io::Error),
}

/// A zygote, as reiver sees it.
#[derive(Debug)]
pub(super) struct Zygote {
    socket: UnixStream,
}

/// To be called first thing by every program that runs job files: where it was started to be a zygote
/// it is one, and never returns. Without it background jobs run as others do, and memory is not
/// limited.
pub fn serve_if_zygote() {
    CAN_SERVE.store(true, Ordering::Relaxed);
    let mut given = std::env::args_os();
    let is_zygote = ARGUMENTS.iter().all(|word| {
        given
            .next()
            .is_some_and(|given| given.as_encoded_bytes() == word.to_bytes())
    });
    if is_zygote {
        // SAFETY: reiver has put the socket there, and nobody else here knows of it.
        let socket = unsafe { UnixStream::from_raw_fd(0) };
        // Where reiver has ended there is nobody to be told anything.
        let _ = serve(socket);
        std::process::exit(0);
    }
}

impl Zygote {
    /// `spawn` starts this very program, with an end of a socket as its standard input.
    ///
    /// # Errors
    /// The system's; `Unsupported` where the program has not said that it can be one.
    pub(super) fn start(
        kind: Kind,
        spawn: impl FnOnce(&UnixStream) -> io::Result<Pid>,
    ) -> io::Result<Zygote> {
        if !CAN_SERVE.load(Ordering::Relaxed) {
            let why = "this program does not begin with reiver_batch::run::serve_if_zygote";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let (mut socket, theirs) = UnixStream::pair()?;
        spawn(&theirs)?;
        drop(theirs);
        socket.write_all(&[kind as u8])?;
        let mut errno = [0; 4];
        socket.read_exact(&mut errno)?;
        match i32::from_ne_bytes(errno) {
            0 => {}
            errno => {
                let error = io::Error::from_raw_os_error(errno);
                tracing::warn!(
                    "the system refuses to give background jobs a small share ({error}): they may \
                     take time from others"
                );
            }
        }
        Ok(Zygote { socket })
    }

    /// Starts a process with these streams.
    ///
    /// # Errors
    /// Why there is no process. Where the zygote is gone, or does not do as it should, it is of no more use.
    pub(super) fn launch(
        &mut self,
        request: &Request,
        streams: [RawFd; 3],
    ) -> Result<Started, NotStarted> {
        let body = request.encode();
        let length = u32::try_from(body.len())
            .map_err(|_| NotStarted::Refused(io::ErrorKind::ArgumentListTooLong.into()))?;
        let asked = send_with(&self.socket, &length.to_ne_bytes(), streams)
            .and_then(|()| self.socket.write_all(&body));
        // What has not read all of a request starts nothing, and ends when this is closed.
        let told = asked.and_then(|()| self.word());
        let pid = told.map_err(NotStarted::Gone)?;
        let answer = self.answer();
        match answer {
            Ok((None, troubles)) if pid > 0 => Ok(Started { pid, troubles }),
            Ok((Some(error), _)) => {
                if pid > 0 {
                    // It has ended, or is about to; nobody has heard of it.
                    let _ = process::reap(pid);
                }
                Err(NotStarted::Refused(error))
            }
            Ok((None, _)) => Err(NotStarted::Gone(io::ErrorKind::InvalidData.into())),
            Err(error) => {
                if pid > 1 {
                    for whom in [pid, -pid] {
                        // There may be no group of that number yet.
                        let _ = process::signal(whom, libc::SIGKILL);
                    }
                    let _ = process::reap(pid);
                }
                Err(NotStarted::Lost(error))
            }
        }
    }

    /// What did not work: what kept the program from being executed, and the rest.
    fn answer(&mut self) -> io::Result<(Option<io::Error>, Troubles)> {
        let mut troubles = Vec::new();
        let mut failed = None;
        for _ in 0..self.word()? {
            let (code, errno) = (self.word()?, self.word()?);
            let error = io::Error::from_raw_os_error(errno);
            match Trouble::of(code) {
                Some(Trouble::Exec) | None => failed = Some(error),
                Some(trouble) => troubles.push((trouble, error)),
            }
        }
        Ok((failed, troubles))
    }

    fn word(&mut self) -> io::Result<i32> {
        let mut bytes = [0; 4];
        self.socket.read_exact(&mut bytes)?;
        Ok(i32::from_ne_bytes(bytes))
    }
}

impl Trouble {
    fn of(code: i32) -> Option<Trouble> {
        use Trouble::{Cgroup, Cpus, Exec, Memory, Schedule};
        let all = [Exec, Cpus, Memory, Cgroup, Schedule];
        all.into_iter().find(|&trouble| trouble as i32 == code)
    }
}

/// Lives as a zygote until the socket is closed.
fn serve(mut socket: UnixStream) -> io::Result<()> {
    let mut kind = [0];
    socket.read_exact(&mut kind)?;
    let kind = match kind[0] == Kind::Background as u8 {
        true => Kind::Background,
        false => Kind::Plain,
    };
    let errno = match kind {
        Kind::Plain => 0,
        Kind::Background => {
            take_smallest_share().map_or_else(|e| e.raw_os_error().unwrap_or(1), |()| 0)
        }
    };
    socket.write_all(&errno.to_ne_bytes())?;
    loop {
        let mut length = [0; 4];
        let streams = receive_with(&socket, &mut length)?;
        let mut body = vec![0; (u32::from_ne_bytes(length) as usize).min(LONGEST)];
        socket.read_exact(&mut body)?;
        let request = Request::decode(&body).ok_or(io::ErrorKind::InvalidData)?;
        let process = match Waiting::fork(kind, &request, &streams) {
            Ok(process) => process,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                let none = [0, 1, Trouble::Exec as i32, errno].map(i32::to_ne_bytes);
                socket.write_all(&none.concat())?;
                continue;
            }
        };
        socket.write_all(&process.pid.to_ne_bytes())?;
        let troubles = process.execute();
        drop(streams);
        let count = i32::try_from(troubles.len()).unwrap_or(0);
        let words = troubles.into_iter().flat_map(|(code, errno)| [code, errno]);
        let words = [count].into_iter().chain(words);
        let answer: Vec<u8> = words.flat_map(i32::to_ne_bytes).collect();
        socket.write_all(&answer)?;
    }
}

/// The session that this process leads gets the smallest share of the CPUs, where the kernel shares them
/// by sessions. Others may be changing theirs, and users have to wait then.
fn take_smallest_share() -> io::Result<()> {
    let begin = Instant::now();
    loop {
        match fs::write("/proc/self/autogroup", "19") {
            // A kernel that does not.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error)
                if error.raw_os_error() == Some(libc::EAGAIN) && begin.elapsed() < PATIENCE =>
            {
                thread::sleep(TRY_AGAIN);
            }
            result => return result,
        }
    }
}

/// A process that is to be a job, and waits to be told so. It ends where this is dropped instead.
struct Waiting {
    pid: Pid,
    go: io::PipeWriter,
    reports: io::PipeReader,
}

impl Waiting {
    /// Has it begin, and waits until the program is executed, or cannot be; what did not work.
    fn execute(mut self) -> Vec<(i32, i32)> {
        // It was killed if it does not read.
        let _ = self.go.write_all(&[1]);
        let mut words = Vec::new();
        // It is started all the same, whatever can be heard of it.
        let _ = self.reports.read_to_end(&mut words);
        let word = |bytes: &[u8]| bytes.try_into().map_or(0, i32::from_ne_bytes);
        let pairs = words.chunks_exact(8);
        pairs
            .map(|pair| (word(&pair[..4]), word(&pair[4..])))
            .collect()
    }

    fn fork(kind: Kind, request: &Request, streams: &[OwnedFd]) -> io::Result<Waiting> {
        let [stdin, stdout, stderr] = streams else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let arguments = pointers(&request.arguments);
        let environment = pointers(&request.environment);
        let (reports, reporter) = io::pipe()?;
        let (mut told, go) = io::pipe()?;
        let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
        // SAFETY: a fork of a process with one thread; the child has a copy of everything, and goes on here
        // with a stack of its own.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        match pid {
            0 => {
                drop(go);
                if told.read_exact(&mut [0]).is_err() {
                    // SAFETY: as below.
                    unsafe { libc::_exit(127) }
                }
                let report = |trouble: Trouble, error: io::Error| {
                    let errno = error.raw_os_error().unwrap_or(libc::EIO);
                    let words = [trouble as i32, errno].map(i32::to_ne_bytes).concat();
                    // Whoever reads has gone with the zygote, or reads.
                    let _ = (&reporter).write_all(&words);
                };
                let streams = [stdin, stdout, stderr].map(AsRawFd::as_raw_fd);
                let error = become_job(kind, request, streams, &report, &arguments, &environment);
                report(Trouble::Exec, error);
                // SAFETY: ends this process, without what the zygote would do at its end.
                unsafe { libc::_exit(127) }
            }
            -1 => Err(io::Error::last_os_error()),
            pid => Ok(Waiting {
                pid: Pid::try_from(pid).expect("a process number is small"),
                go,
                reports,
            }),
        }
    }
}

/// Takes on all that the job is to have, and executes its program; returns only if that fails.
fn become_job(
    kind: Kind,
    request: &Request,
    streams: [RawFd; 3],
    report: &dyn Fn(Trouble, io::Error),
    arguments: &[*const c_char],
    environment: &[*const c_char],
) -> io::Error {
    let checked = |result: c_int| match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    for group in &request.cgroups {
        let group = group.to_str().unwrap_or_default();
        // 0 stands for whoever writes it.
        if let Err(error) = fs::write(group, "0") {
            report(Trouble::Cgroup, error);
        }
    }
    let grouped = match kind {
        // SAFETY: takes nothing.
        Kind::Plain => checked(unsafe { libc::setsid() }),
        // SAFETY: takes two numbers.
        Kind::Background => checked(unsafe { libc::setpgid(0, 0) }),
    };
    if let Err(error) = grouped {
        return error;
    }
    if kind == Kind::Background
        && let Err(error) = give_way()
    {
        report(Trouble::Schedule, error);
    }
    if !request.cpus.is_empty()
        && let Err(error) = place::set_thread_affinity(&request.cpus)
    {
        report(Trouble::Cpus, error);
    }
    if let Some((mode, nodes)) = &request.memory
        && let Err(error) = place::set_thread_memory(*mode, nodes)
    {
        report(Trouble::Memory, error);
    }
    for (target, stream) in (0..).zip(streams) {
        // SAFETY: takes two numbers; what was at the target is the socket of the zygote, or nothing that
        // is needed any more.
        if let Err(error) = checked(unsafe { libc::dup2(stream, target) }) {
            return error;
        }
    }
    if let Some(brand) = Brand::from_number(request.brand) {
        brand.take_on();
    }
    // SAFETY: the text ends in NUL.
    if let Err(error) = checked(unsafe { libc::chdir(request.cwd.as_ptr()) }) {
        return error;
    }
    // What the runtime ignores is the one thing that is not as it was when the zygote was started.
    // SAFETY: no handler, and no memory.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: the texts end in NUL, the lists in a null pointer, and all of them live.
    unsafe {
        libc::execve(
            request.program.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
        );
    }
    io::Error::last_os_error()
}

/// From here on this process runs when nobody else on its CPU wants to; nice 19 where that is refused.
fn give_way() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads the parameters.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    if result == 0 {
        return Ok(());
    }
    // SAFETY: takes numbers.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The list that C wants: pointers, and a null one after them.
fn pointers(words: &[CString]) -> Vec<*const c_char> {
    let words = words.iter().map(|word| word.as_ptr());
    words.chain([ptr::null()]).collect()
}

impl Request {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let text = |out: &mut Vec<u8>, text: &[u8]| {
            out.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_ne_bytes());
            out.extend(text);
        };
        let cpus = self.cpus.to_string();
        let memory = self.memory.as_ref().map_or(String::new(), |(mode, nodes)| {
            let mode = match mode {
                MemoryMode::Bind => "bind",
                MemoryMode::Preferred => "preferred",
                MemoryMode::Interleave => "interleave",
                MemoryMode::Local => "local",
            };
            let nodes = nodes.iter().map(|node| format!(" {node}"));
            mode.to_owned() + &nodes.collect::<String>()
        });
        for one in [
            self.program.to_bytes(),
            self.cwd.to_bytes(),
            cpus.as_bytes(),
            memory.as_bytes(),
            self.brand.to_string().as_bytes(),
        ] {
            text(&mut out, one);
        }
        for list in [&self.arguments, &self.environment, &self.cgroups] {
            out.extend(u32::try_from(list.len()).unwrap_or(u32::MAX).to_ne_bytes());
            for one in list {
                text(&mut out, one.to_bytes());
            }
        }
        out
    }

    fn decode(mut bytes: &[u8]) -> Option<Request> {
        let number = |bytes: &mut &[u8]| -> Option<usize> {
            let (first, rest) = bytes.split_first_chunk::<4>()?;
            *bytes = rest;
            Some(u32::from_ne_bytes(*first) as usize)
        };
        let text = |bytes: &mut &[u8]| -> Option<CString> {
            let length = number(bytes)?;
            let (first, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            CString::new(first).ok()
        };
        let mut request = Request {
            program: text(&mut bytes)?,
            cwd: text(&mut bytes)?,
            ..Request::default()
        };
        request.cpus = text(&mut bytes)?.to_str().ok()?.parse().ok()?;
        let memory = text(&mut bytes)?;
        let mut words = memory.to_str().ok()?.split(' ');
        let mode = match words.next()? {
            "bind" => Some(MemoryMode::Bind),
            "preferred" => Some(MemoryMode::Preferred),
            "interleave" => Some(MemoryMode::Interleave),
            "local" => Some(MemoryMode::Local),
            _ => None,
        };
        let nodes: Option<Vec<NodeId>> = words.map(|word| word.parse().ok().map(NodeId)).collect();
        request.memory = mode.zip(nodes);
        request.brand = text(&mut bytes)?.to_str().ok()?.parse().ok()?;
        for list in [
            &mut request.arguments,
            &mut request.environment,
            &mut request.cgroups,
        ] {
            let (first, rest) = bytes.split_first_chunk::<4>()?;
            bytes = rest;
            for _ in 0..u32::from_ne_bytes(*first) {
                list.push(text(&mut bytes)?);
            }
        }
        bytes.is_empty().then_some(request)
    }
}

/// Room for three descriptors in a message, aligned as its header has to be.
#[repr(align(8))]
struct Control([u8; 64]);

/// A message of these bytes, with room for what goes with them.
fn message(bytes: &mut libc::iovec, control: &mut Control, length: usize) -> libc::msghdr {
    // SAFETY: plain data; all-zero is a valid value of it.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = ptr::from_mut(bytes);
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = length as _;
    message
}

/// Three descriptors.
const STREAMS_BYTES: u32 = 12;
const _: () = assert!(STREAMS_BYTES as usize == 3 * size_of::<RawFd>());

/// Sends four bytes with three descriptors.
fn send_with(socket: &UnixStream, word: &[u8; 4], streams: [RawFd; 3]) -> io::Result<()> {
    let mut control = Control([0; 64]);
    let mut bytes = libc::iovec {
        iov_base: word.as_ptr().cast_mut().cast(),
        iov_len: word.len(),
    };
    // SAFETY: a number for a number.
    let space = unsafe { libc::CMSG_SPACE(STREAMS_BYTES) } as usize;
    let message = message(&mut bytes, &mut control, space);
    // SAFETY: the message has room for a header.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: a number for a number.
    let length = unsafe { libc::CMSG_LEN(STREAMS_BYTES) };
    // SAFETY: it lies in `control`, aligned, and nobody else has it.
    unsafe {
        (*header) = libc::cmsghdr {
            cmsg_len: length as _,
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        };
    }
    // SAFETY: behind the header there is room for what its length says.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: as above; bytes need no alignment.
    unsafe {
        ptr::copy_nonoverlapping(streams.as_ptr().cast::<u8>(), data, STREAMS_BYTES as usize)
    };
    // SAFETY: the message and all that it points to live until the call returns.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    match sent {
        -1 => Err(io::Error::last_os_error()),
        4 => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Receives what [`send_with`] sends; an error where nobody is there any more.
fn receive_with(socket: &UnixStream, word: &mut [u8; 4]) -> io::Result<Vec<OwnedFd>> {
    let mut control = Control([0; 64]);
    let mut bytes = libc::iovec {
        iov_base: word.as_mut_ptr().cast(),
        iov_len: word.len(),
    };
    let mut message = message(&mut bytes, &mut control, 64);
    // SAFETY: the message and all that it points to live until the call returns.
    let received =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    if received == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has filled the message in.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    let mut streams = Vec::new();
    if !header.is_null() {
        // SAFETY: the kernel wrote it.
        let kind = unsafe { (*header).cmsg_type };
        // SAFETY: as above.
        let data = unsafe { libc::CMSG_DATA(header) };
        if kind == libc::SCM_RIGHTS {
            let mut numbers = [-1 as RawFd; 3];
            // SAFETY: whoever sends, sends three; they lie within `control`, which is larger.
            unsafe {
                ptr::copy_nonoverlapping(data, numbers.as_mut_ptr().cast(), STREAMS_BYTES as usize);
            }
            // SAFETY: they are new, and nobody else's.
            streams.extend(numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    match received {
        4 => Ok(streams),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_arrives_as_it_was_sent() {
        let word = |text: &str| CString::new(text).expect("no NUL");
        for memory in [
            None,
            Some((MemoryMode::Local, vec![])),
            Some((MemoryMode::Bind, vec![NodeId(0), NodeId(7)])),
        ] {
            let request = Request {
                program: word("/bin/true"),
                arguments: vec![word("true"), word(""), word("a b\n")],
                environment: vec![word("A=1")],
                cwd: word("/"),
                cgroups: Vec::new(),
                cpus: "0-3,8".parse().expect("a set"),
                memory,
                brand: 7,
            };
            let bytes = request.encode();
            assert_eq!(Request::decode(&bytes), Some(request));
            for length in 0..bytes.len() {
                assert_eq!(Request::decode(&bytes[..length]), None);
            }
        }
    }

    #[test]
    fn descriptors_go_along() {
        let (here, there) = UnixStream::pair().expect("a socket");
        let (reader, writer) = io::pipe().expect("a pipe");
        let fd = writer.as_raw_fd();
        send_with(&here, &7u32.to_ne_bytes(), [fd, fd, reader.as_raw_fd()]).expect("sent");
        let mut word = [0; 4];
        let streams = receive_with(&there, &mut word).expect("received");
        assert_eq!((u32::from_ne_bytes(word), streams.len()), (7, 3));
        drop(writer);
        fs::File::from(streams.into_iter().next().expect("three"))
            .write_all(b"x")
            .expect("somebody reads");
        drop(here);
        assert!(receive_with(&there, &mut word).is_err());
    }
}
