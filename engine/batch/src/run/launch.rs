//! Starts the process of an attempt.
//!
//! What takes a `clone` and an `execve` does [`spawn`]. The child leads a session of its own and starts as
//! from a shell: default signal actions, none blocked, three descriptors.
//!
//! What a child cannot do for a job before it executes is done by a [`zygote`](super::zygote) that starts it.
//!
//! A shell line without any shell syntax is executed directly, at half the cost; where that turns
//! out not to be possible the shell gets it after all, and says what is wrong in its own words.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Once;

use super::brand::Brand;
use super::placed::{self, Placed};
use super::process::Pid;
use super::spawn::{self, Child, Spawned, Strings};
use super::streams::{Streams, set_blocking};
use super::tokens::Offer;
use super::zygote::{ARGUMENTS, Kind, NotStarted, Request, Trouble, Zygote};
use crate::event::Placement;
use crate::plan::{Attempt, Command};
use crate::shell::plain_words;

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) pid: Pid,
    /// Ready to be read once it has ended, if the system gave that with it.
    pub(crate) end: Option<OwnedFd>,
    /// Where to read its standard output, if that is captured.
    pub(crate) stdout: Option<OwnedFd>,
    /// Where to read its standard error, if that is captured apart.
    pub(crate) stderr: Option<OwnedFd>,
}

/// Variables that no two attempts have alike.
pub(crate) type Words = [(&'static str, OsString); 3];

/// What an attempt is given besides what its file says.
#[derive(Debug)]
pub(crate) struct Setting<'s> {
    /// Variables by which its processes are known; they win over its own.
    pub(crate) words: &'s Words,
    /// More that win.
    pub(crate) variables: Vec<(String, OsString)>,
    /// Where it is placed, if it is.
    pub(crate) placement: Option<&'s Placement>,
    /// Whether it gives way to all others.
    pub(crate) is_background: bool,
    /// Files that take the numbers of processes which are to belong to its cgroup, if it has one.
    pub(crate) cgroups: &'s [PathBuf],
    /// By which all that it starts is known.
    pub(crate) brand: Option<Brand>,
}

impl Setting<'_> {
    /// True if it takes a zygote to start it.
    pub(crate) fn takes_zygote(&self) -> bool {
        self.is_background || !self.cgroups.is_empty()
    }
}

/// The zygotes of a run, each started when it is first needed. Who holds them is the only one to start
/// a process by them.
#[derive(Debug, Default)]
pub(crate) struct Zygotes {
    plain: Option<Zygote>,
    background: Option<Zygote>,
    /// They could not be started, which was said.
    are_refused: bool,
}

/// What is the same for every launch of a run, made ready once.
#[derive(Debug)]
pub(crate) struct Launcher {
    /// This process's environment, without what every attempt sets anew.
    environment: Vec<(OsString, CString)>,
    null: File,
    /// What jobs inherit besides their streams, and zygotes for them.
    descriptors: Vec<RawFd>,
}

/// What a process is given besides its program.
#[derive(Debug)]
struct Given<'g> {
    streams: [RawFd; 3],
    /// What it inherits besides them.
    inherited: &'g [RawFd],
    brand: Option<Brand>,
}

/// The search path of a shell that was given none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
pub(super) const SHELL: &CStr = c"/bin/sh";
/// Set by every launch.
const PWD: &str = "PWD";

impl Launcher {
    pub(super) fn new(offer: Offer) -> io::Result<Launcher> {
        let Offer {
            descriptors,
            variables,
        } = offer;
        let kept =
            |key: &OsString| key != PWD && !variables.iter().any(|(offered, _)| key == &**offered);
        let offered = variables
            .iter()
            .filter_map(|(key, value)| Some((OsString::from(&**key), value.clone()?)));
        let environment = std::env::vars_os()
            .filter(|(key, _)| kept(key))
            .chain(offered)
            .filter_map(|(key, value)| {
                let word = variable(&key, &value).ok()?;
                Some((key, word))
            })
            .collect();
        let null = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        Ok(Launcher {
            environment,
            null,
            descriptors,
        })
    }

    /// Starts an attempt, by `zygotes` where it takes one of them.
    ///
    /// # Errors
    /// The system's reason, with what it is about.
    pub(crate) fn launch(
        &self,
        attempt: &Attempt,
        setting: &Setting<'_>,
        zygotes: Option<&mut Zygotes>,
    ) -> Result<Launched, String> {
        // Its absence is noticed by the spawn; but what makes files must not make it.
        if attempt.opens_files() {
            check_folder(&attempt.cwd)?;
        }
        let launched = self.launch_in(attempt, setting, zygotes);
        launched.map_err(|error| check_folder(&attempt.cwd).err().unwrap_or(error))
    }

    fn launch_in(
        &self,
        attempt: &Attempt,
        setting: &Setting<'_>,
        zygotes: Option<&mut Zygotes>,
    ) -> Result<Launched, String> {
        let streams = Streams::open(attempt)?;
        let descriptors = streams.descriptors(self.null.as_raw_fd());
        let added = added_variables(attempt, setting)?;
        let mut zygote = zygotes.and_then(|zygotes| self.zygote(zygotes, setting));
        let _placed = match zygote {
            None => setting.placement.map(Placed::of),
            Some(_) => None,
        };
        let mut spawn_as = |program: &CStr, arguments: &[CString]| -> Result<Spawned, Unexecuted> {
            let (added, cwd) = (&added, &attempt.cwd);
            let Some(zygote) = zygote.as_mut() else {
                let given = Given {
                    streams: descriptors,
                    inherited: &self.descriptors,
                    brand: setting.brand,
                };
                return Ok(self.spawn(program, arguments, added, cwd, &given)?);
            };
            let request = self.request(program, arguments, added, cwd, setting)?;
            let started = match zygote.launch(&request, descriptors) {
                Err(NotStarted::Gone(_)) => {
                    **zygote = self.start_zygote(setting)?;
                    zygote.launch(&request, descriptors)
                }
                started => started,
            }?;
            started.troubles.iter().for_each(say_once);
            let (pid, end) = (started.pid, None);
            Ok(Spawned { pid, end })
        };
        let mut spawn =
            |program: &CStr, arguments: &[CString]| match streams.around(program, arguments) {
                None => spawn_as(program, arguments),
                Some((shell, words)) => spawn_as(&shell, &words),
            };
        let search = || self.search_path(attempt);
        // One that is named by its path is executed to see whether it can be, unless a shell would
        // have to say that it cannot.
        let find = |name: &OsStr| match name.as_bytes().contains(&b'/') && !streams.has_pipes() {
            true => Ok(CString::new(attempt.cwd.join(name).as_os_str().as_bytes())?),
            false => find(name, &search(), &attempt.cwd),
        };

        let Spawned { pid, end } = match &attempt.command {
            Command::Argv(words) => {
                let arguments = c_strings(words.iter().map(OsString::as_os_str))?;
                let program = find(&words[0])
                    .map_err(|error| format!("cannot run `{}`: {error}", words[0].display()))?;
                spawn(&program, &arguments).map_err(|error| {
                    let why = match error.error.kind() {
                        io::ErrorKind::NotFound => interpreter_is_missing(&program),
                        _ => None,
                    };
                    let why = why.unwrap_or_else(|| error.to_string());
                    format!("cannot run `{}`: {why}", words[0].display())
                })?
            }
            Command::Task(name) => return Err(format!("`{name}` is a task, and no process")),
            Command::Shell(line) => {
                let direct = plain_words(line.as_bytes()).and_then(|words| {
                    let words = words.iter().map(|word| OsStr::from_bytes(word));
                    let arguments = c_strings(words.clone()).ok()?;
                    let program = find(words.clone().next()?).ok()?;
                    Some(spawn(&program, &arguments))
                });
                match direct {
                    Some(Ok(spawned)) => spawned,
                    // It may have begun: it is not begun a second time.
                    Some(Err(error)) if error.may_have_begun => {
                        return Err(format!("cannot run the line: {error}"));
                    }
                    Some(Err(_)) | None => {
                        // `--`, for a line may begin with a dash.
                        let words = ["/bin/sh", "-c", "--"].map(OsStr::new);
                        let words = words.into_iter().chain([line.as_os_str()]);
                        spawn(SHELL, &c_strings(words)?)
                            .map_err(|error| format!("cannot run /bin/sh: {error}"))?
                    }
                }
            }
        };
        Ok(Launched {
            pid,
            end,
            stdout: streams.stdout_reader,
            stderr: streams.stderr_reader,
        })
    }

    /// Our own environment, and what is added to it; that wins.
    fn environment_with<'e>(
        &'e self,
        added: &'e [(&OsStr, CString)],
    ) -> impl Iterator<Item = &'e CStr> {
        let is_added = |key: &OsString| added.iter().any(|(added, _)| added == key);
        let own = self.environment.iter();
        let own = own.filter(move |(key, _)| !is_added(key));
        own.map(|(_, word)| &**word)
            .chain(added.iter().map(|(_, word)| &**word))
    }

    fn search_path(&self, attempt: &Attempt) -> OsString {
        let own = attempt
            .env
            .iter()
            .rfind(|(key, _)| key == "PATH")
            .map(|(_, value)| value.clone());
        own.or_else(|| {
            let (_, word) = self.environment.iter().find(|(key, _)| key == "PATH")?;
            let value = word.to_bytes().strip_prefix(b"PATH=")?;
            Some(OsStr::from_bytes(value).to_owned())
        })
        .unwrap_or_else(|| DEFAULT_PATH.into())
    }

    fn spawn(
        &self,
        program: &CStr,
        arguments: &[CString],
        added: &[(&OsStr, CString)],
        cwd: &Path,
        given: &Given<'_>,
    ) -> io::Result<Spawned> {
        let folder = CString::new(cwd.as_os_str().as_bytes())?;
        spawn::spawn(&Child {
            program,
            arguments: &Strings::new(arguments.iter().map(CString::as_c_str)),
            environment: &Strings::new(self.environment_with(added)),
            folder: &folder,
            streams: given.streams,
            inherited: given.inherited,
            brand: given.brand,
        })
    }

    /// The zygote that an attempt takes; `None` where there can be none, which is said once.
    fn zygote<'z>(
        &self,
        zygotes: &'z mut Zygotes,
        setting: &Setting<'_>,
    ) -> Option<&'z mut Zygote> {
        if zygotes.are_refused {
            return None;
        }
        let place = match setting.is_background {
            true => &mut zygotes.background,
            false => &mut zygotes.plain,
        };
        if place.is_none() {
            match self.start_zygote(setting) {
                Ok(zygote) => *place = Some(zygote),
                Err(error) => {
                    zygotes.are_refused = true;
                    tracing::warn!(
                        "cannot start a process to start others ({error}): background jobs run as \
                         others do, and memory of jobs is not limited"
                    );
                }
            }
        }
        place.as_mut()
    }

    fn start_zygote(&self, setting: &Setting<'_>) -> io::Result<Zygote> {
        let kind = match setting.is_background {
            true => Kind::Background,
            false => Kind::Plain,
        };
        Zygote::start(kind, |socket| {
            let null = self.null.as_raw_fd();
            let arguments = ARGUMENTS.map(CStr::to_owned);
            let folder = Path::new("/");
            let given = Given {
                streams: [socket.as_raw_fd(), null, null],
                inherited: &self.descriptors,
                brand: None,
            };
            let spawned = self.spawn(c"/proc/self/exe", &arguments, &[], folder, &given);
            spawned.map(|spawned| spawned.pid)
        })
    }

    fn request(
        &self,
        program: &CStr,
        arguments: &[CString],
        added: &[(&OsStr, CString)],
        cwd: &Path,
        setting: &Setting<'_>,
    ) -> io::Result<Request> {
        let path = |path: &Path| CString::new(path.as_os_str().as_bytes());
        let cgroups: Result<Vec<CString>, _> =
            setting.cgroups.iter().map(|file| path(file)).collect();
        let placement = setting.placement;
        let memory = placement.and_then(|placement| placement.memory.as_ref());
        Ok(Request {
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            environment: self.environment_with(added).map(CStr::to_owned).collect(),
            cwd: path(cwd)?,
            cgroups: cgroups?,
            cpus: placement
                .map(|placement| placement.cpus.clone())
                .unwrap_or_default(),
            memory: memory.map(|(policy, nodes)| (placed::mode_of(*policy), nodes.clone())),
            brand: setting.brand.map_or(0, Brand::to_number),
        })
    }

    /// Gives what still writes to a pipe whose reader is about to go somebody else who reads: the
    /// writer outlives its attempt, and is neither held up nor killed by writing. It ends with the
    /// last writer.
    pub(crate) fn drain_into_nothing(&self, reader: &OwnedFd) {
        let null = self.null.as_raw_fd();
        let given = Given {
            streams: [reader.as_raw_fd(), null, null],
            inherited: &[],
            brand: None,
        };
        let cat = || -> io::Result<()> {
            let folder = Path::new("/");
            let program = find(OsStr::new("cat"), OsStr::new(DEFAULT_PATH), folder)?;
            set_blocking(reader)?;
            let spawned = self.spawn(&program, &[c"cat".to_owned()], &[], folder, &given);
            spawned.map(drop)
        };
        if let Err(error) = cat() {
            tracing::warn!(
                "cannot start `cat` to read on for a process that outlives its job ({error}); \
                 it may be ended by writing"
            );
        }
    }
}

/// What the attempt's environment has over ours, the last of each name; what is given wins.
fn added_variables<'v>(
    attempt: &'v Attempt,
    setting: &'v Setting<'_>,
) -> Result<Vec<(&'v OsStr, CString)>, String> {
    let own = attempt
        .env
        .iter()
        .map(|(key, value)| (key.as_os_str(), value.as_os_str()));
    let has_pwd = attempt.env.iter().any(|(key, _)| key == PWD);
    let pwd = (!has_pwd).then_some((OsStr::new(PWD), attempt.cwd.as_os_str()));
    let words = setting.words.iter();
    let words = words.map(|(key, value)| (OsStr::new(key), value.as_os_str()));
    let more = setting.variables.iter();
    let more = more.map(|(key, value)| (OsStr::new(key), value.as_os_str()));
    let mut added: Vec<(&OsStr, CString)> = Vec::new();
    for (key, value) in own.chain(pwd).chain(words).chain(more) {
        let word = variable(key, value)?;
        match added.iter_mut().find(|(other, _)| *other == key) {
            Some(slot) => slot.1 = word,
            None => added.push((key, word)),
        }
    }
    Ok(added)
}

/// Says what a job has to do without, each thing once.
fn say_once((trouble, error): &(Trouble, io::Error)) {
    match trouble {
        Trouble::Cpus => placed::say_once_of_cpus(error),
        Trouble::Memory => placed::say_once_of_memory(error),
        Trouble::Cgroup => {
            static ONCE: Once = Once::new();
            ONCE.call_once(|| {
                tracing::warn!(
                    "a job cannot enter its cgroup ({error}): its memory is not limited"
                );
            });
        }
        Trouble::Schedule => {
            static ONCE: Once = Once::new();
            ONCE.call_once(|| {
                tracing::warn!("the system lets no job run in the background ({error})");
            });
        }
        Trouble::Exec => unreachable!("that is an error of the launch"),
    }
}

/// Why a program was not executed, or is not known to have been.
#[derive(Debug)]
struct Unexecuted {
    error: io::Error,
    may_have_begun: bool,
}

impl From<io::Error> for Unexecuted {
    fn from(error: io::Error) -> Unexecuted {
        Unexecuted {
            error,
            may_have_begun: false,
        }
    }
}

impl From<NotStarted> for Unexecuted {
    fn from(not_started: NotStarted) -> Unexecuted {
        let (error, may_have_begun) = match not_started {
            NotStarted::Refused(error) | NotStarted::Gone(error) => (error, false),
            NotStarted::Lost(error) => (error, true),
        };
        Unexecuted {
            error,
            may_have_begun,
        }
    }
}

impl fmt::Display for Unexecuted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.may_have_begun {
            true => write!(
                f,
                "the process that starts it ended meanwhile ({})",
                self.error
            ),
            false => self.error.fmt(f),
        }
    }
}

pub(super) fn about<'a>(what: &'a str, path: &'a Path) -> impl Fn(io::Error) -> String + 'a {
    move |error| format!("{what} {}: {error}", path.display())
}

fn check_folder(cwd: &Path) -> Result<(), String> {
    let metadata = fs::metadata(cwd).map_err(about("cwd", cwd))?;
    if !metadata.is_dir() {
        return Err(about("cwd", cwd)(io::ErrorKind::NotADirectory.into()));
    }
    let path = c_string(cwd.as_os_str())?;
    is_accessible(&path).map_err(about("cwd", cwd))
}

/// True to its name for the effective user, of a program or of a folder.
fn is_accessible(path: &CStr) -> io::Result<()> {
    // SAFETY: the path ends in NUL and outlives the call.
    let result =
        unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Where a shell would find a program.
fn find(name: &OsStr, path: &OsStr, cwd: &Path) -> io::Result<CString> {
    let is_program = |candidate: &Path| -> io::Result<CString> {
        let program = CString::new(candidate.as_os_str().as_bytes())?;
        let metadata = fs::metadata(candidate)?;
        if metadata.is_dir() || metadata.mode() & 0o111 == 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        is_accessible(&program).map(|()| program)
    };
    if name.as_bytes().contains(&b'/') {
        return is_program(&cwd.join(name));
    }
    let mut refused = io::Error::from_raw_os_error(libc::ENOENT);
    for folder in std::env::split_paths(path) {
        // An empty entry is the current folder.
        let candidate = cwd.join(folder).join(name);
        match is_program(&candidate) {
            Ok(program) => return Ok(program),
            // In a folder that we may not look into there may be anything, and most often nothing.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && candidate.exists() => {
                refused = error;
            }
            Err(_) => {}
        }
    }
    Err(refused)
}

/// What the system has not found where it has found the program itself.
fn interpreter_is_missing(program: &CStr) -> Option<String> {
    // As much of a first line as the system reads.
    let mut begin = [0; 256];
    let mut file = File::open(OsStr::from_bytes(program.to_bytes())).ok()?;
    let length = file.read(&mut begin).ok()?;
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(line) = begin[..length].strip_prefix(b"#!") else {
        return Some("it is there, but the program that would load it is not".to_owned());
    };
    let line = line.split(|&byte| byte == b'\n').next()?;
    let name = line.split(is_blank).find(|word| !word.is_empty())?;
    let name = String::from_utf8_lossy(name);
    let hint = match name.ends_with('\r') {
        true => "; its lines end as on Windows",
        false => "",
    };
    Some(format!(
        "its first line wants {name:?}, which is not there{hint}"
    ))
}

fn c_string(text: &OsStr) -> Result<CString, String> {
    CString::new(text.as_bytes()).map_err(|_| holds_nul(text))
}

fn c_strings<'a>(words: impl Iterator<Item = &'a OsStr>) -> Result<Vec<CString>, String> {
    words.map(c_string).collect()
}

fn variable(key: &OsStr, value: &OsStr) -> Result<CString, String> {
    // With room for what ends it.
    let mut word = Vec::with_capacity(key.len() + value.len() + 2);
    word.extend(key.as_bytes());
    word.push(b'=');
    word.extend(value.as_bytes());
    CString::new(word).map_err(|error| holds_nul(&OsString::from_vec(error.into_vec())))
}

fn holds_nul(text: &OsStr) -> String {
    format!("`{}` holds a NUL byte", text.display())
}

/// Sees to it that what this process inherited, beyond its three streams, goes no further: what a
/// job finds open is its three streams alone. To be called once, at the start.
pub fn close_inherited_descriptors() {
    // SAFETY: sets a flag of descriptors; none is closed, and no memory is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        return;
    }
    // A kernel before 5.11, or a sandbox.
    for entry in fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
    {
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<RawFd>().ok());
        if let Some(fd) = number.filter(|&fd| fd > 2) {
            // SAFETY: sets a flag; a number that is no descriptor any more is refused.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}
