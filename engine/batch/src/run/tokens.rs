//! The jobserver of GNU make: cpu slots that nobody needs here are lent to what jobs run (make, cargo),
//! and where a make above us has one, slots are borrowed from it.
//!
//! A token is a byte in a pipe. Who runs something has one slot without any token; for each more it takes
//! a token, and puts it back. The coordinator has all slots that it counts as free; a slot is here or in
//! the pipe, never in both:
//!
//! - *server*: all slots are ours at first. What no job waits for is put into our pipe; once a job waits
//!   that lacks slots, they are taken back as they come.
//! - *client*: one slot is ours, the others are tokens of somebody else's pipe: they are taken when a job
//!   waits for them, and put back when none does.
//!
//! While no cpu job runs nobody is waited for: a token that a killed make took with it never comes back.
//!
//! The pipe's two descriptors are inherited by jobs, and no others: GNU make before 4.4 can open no named
//! pipe.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use jobserver::Client;

use super::Message;
use super::watch::poll;
use crate::plan::variable_of;

/// Where who speaks this protocol looks, in this order (cargo, make).
const VARIABLES: [&str; 3] = ["CARGO_MAKEFLAGS", "MAKEFLAGS", "MFLAGS"];
/// Tokens in our pipe at the most: so many fit into any.
const MOST_LENT: u32 = 4096;

/// What all jobs of a run are started with, the pipe above all.
#[derive(Debug, Default, Clone)]
pub(super) struct Offer {
    /// Descriptors that they inherit, under the numbers that they have here.
    pub(super) descriptors: Vec<RawFd>,
    /// Variables over ours; those without a value are taken away.
    pub(super) variables: Vec<(Cow<'static, str>, Option<OsString>)>,
}

impl Offer {
    /// Takes away the variables of a run's resources, which another run may have set for this one:
    /// a job that holds none has none.
    pub(super) fn withhold(&mut self, resources: &[(String, u32)]) {
        let names = resources.iter().filter_map(|(name, _)| variable_of(name));
        let withheld = names.map(|name| (name.into(), None));
        self.variables.extend(withheld);
    }
}

/// Slots that are elsewhere.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Keeps the descriptors open.
    _client: Client,
    is_server: bool,
    /// Our own ends, which do not block: others may share the flags of the pipe's.
    reader: File,
    writer: File,
    limit: u32,
    /// Slots that are not the coordinator's.
    outside: u32,
    /// Of the coordinator's, those that nobody has given.
    overdraft: u32,
    /// Tokens of somebody else's that we hold.
    held: Vec<u8>,
    /// Who waits until there is something in the pipe, once there was need of that.
    waiter: Option<Waiter>,
    coordinator: Sender<Message>,
}

#[derive(Debug)]
struct Waiter {
    ask: Sender<()>,
    is_asked: bool,
    /// It ends when this is closed.
    _stop: io::PipeWriter,
}

/// The coordinator's cpu slots, as they are counted here.
pub(super) trait Slots {
    /// Free ones that no job waits for.
    fn idle_cpus(&self) -> u32;
    /// How many more the job needs that is next.
    fn wanted_cpus(&self) -> u32;
    /// All that are free.
    fn free_cpus(&self) -> u32;
    /// Jobs run that hold no cpu slots; what runs in them may hold tokens all the same.
    fn runs_others(&self) -> bool;
    fn add_cpus(&mut self, slots: u32);
    fn remove_cpus(&mut self, slots: u32);
}

impl Tokens {
    /// The pipe that the environment offers, or one of our own, and what jobs are to be given of it. None
    /// where the system refuses one: then jobs know of nobody to share with.
    pub(super) fn open(limit: u32, coordinator: Sender<Message>) -> (Option<Tokens>, Offer) {
        // SAFETY: the descriptors that the variables name were inherited for this, and nothing here has
        // any of them; that they are pipes is looked at.
        let found = unsafe { Client::from_env_ext(true) };
        let (client, is_server) = match found.client {
            Ok(client) => (client, false),
            Err(error) => {
                if offers_any() {
                    tracing::warn!(
                        "the jobserver that the environment names cannot be used ({error}): slots are not \
                         shared with it; a recipe of make gives it to lines that begin with `+`"
                    );
                }
                match Client::new(0) {
                    Ok(client) => (client, true),
                    Err(error) => {
                        tracing::warn!("no jobserver for what jobs run: {error}");
                        return (None, Offer::default());
                    }
                }
            }
        };
        match Tokens::of(client, is_server, limit, coordinator) {
            Ok((tokens, offer)) => (Some(tokens), offer),
            Err(error) => {
                tracing::warn!("no jobserver for what jobs run: {error}");
                (None, Offer::default())
            }
        }
    }

    fn of(
        client: Client,
        is_server: bool,
        limit: u32,
        coordinator: Sender<Message>,
    ) -> io::Result<(Tokens, Offer)> {
        let address = address(&client).ok_or(io::ErrorKind::InvalidData)?;
        let mut offer = Offer::default();
        let [reader, writer] = match address.strip_prefix("fifo:") {
            Some(path) => [path.to_owned(), path.to_owned()],
            None => {
                let numbers = address.split(',').map(str::parse);
                let numbers: Result<Vec<RawFd>, _> = numbers.collect();
                offer.descriptors = numbers.map_err(io::Error::other)?;
                let [reader, writer] = offer.descriptors[..] else {
                    return Err(io::ErrorKind::InvalidData.into());
                };
                [reader, writer].map(|fd| format!("/proc/self/fd/{fd}"))
            }
        };
        if is_server {
            offer.variables = vec![
                ("MAKEFLAGS".into(), Some(make_flags(&address))),
                ("MFLAGS".into(), None),
                ("CARGO_MAKEFLAGS".into(), None),
            ];
        }
        let open = |path: String, write: bool| {
            let mut options = OpenOptions::new();
            options.read(!write).write(write);
            options.custom_flags(libc::O_NONBLOCK).open(path)
        };
        let tokens = Tokens {
            _client: client,
            is_server,
            reader: open(reader, false)?,
            writer: open(writer, true)?,
            limit,
            outside: 0,
            overdraft: 0,
            held: Vec::new(),
            waiter: None,
            coordinator,
        };
        Ok((tokens, offer))
    }

    /// To be called before anything runs.
    pub(super) fn begin(&mut self, slots: &mut impl Slots) {
        if !self.is_server {
            self.outside = self.limit - 1;
            slots.remove_cpus(self.outside);
        }
    }

    /// Takes what the next job lacks, or lends what no job waits for; true if there are more slots now.
    pub(super) fn balance(&mut self, slots: &mut impl Slots) -> bool {
        let wanted = slots.wanted_cpus().min(self.outside);
        if wanted > 0 {
            let taken = self.take(wanted);
            let runs = self.limit > self.outside + slots.free_cpus();
            self.outside -= taken;
            slots.add_cpus(taken);
            let lacks = wanted - taken;
            if lacks == 0 {
                return true;
            }
            if runs {
                self.wait();
                return taken > 0;
            }
            if self.is_server && !slots.runs_others() {
                // Nothing runs, so what is not in the pipe went with a make that was killed.
                while self.take(MOST_LENT) > 0 {}
                slots.add_cpus(self.outside);
                (self.outside, self.overdraft) = (0, 0);
                return true;
            }
            // No cpu job of ours runs that could be waited for.
            self.outside -= lacks;
            self.overdraft += lacks;
            slots.add_cpus(lacks);
            return true;
        }
        let idle = slots.idle_cpus();
        if idle > 0 {
            let given = self.give(idle);
            slots.remove_cpus(given);
            self.outside += given;
        }
        false
    }

    /// There may be something in the pipe.
    pub(super) fn came(&mut self) {
        if let Some(waiter) = &mut self.waiter {
            waiter.is_asked = false;
        }
    }

    fn take(&mut self, most: u32) -> u32 {
        let mut taken = 0;
        let mut token = [0];
        while taken < most {
            match self.reader.read(&mut token) {
                Ok(1) => {
                    taken += 1;
                    if !self.is_server {
                        self.held.push(token[0]);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        taken
    }

    fn give(&mut self, most: u32) -> u32 {
        let mut given = 0;
        // What nobody has given need not be given back to anybody.
        let forgotten = self.overdraft.min(most);
        self.overdraft -= forgotten;
        given += forgotten;
        while given < most {
            let token = match self.is_server {
                true if self.outside + given < MOST_LENT.min(self.limit) => b'+',
                true => break,
                false => match self.held.last() {
                    Some(&token) => token,
                    None => break,
                },
            };
            match self.writer.write(&[token]) {
                Ok(1) => {
                    given += 1;
                    self.held.pop();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        given
    }

    /// Has the coordinator told once there is something in the pipe.
    fn wait(&mut self) {
        if self.waiter.is_none() {
            match self.start_waiter() {
                Ok(waiter) => self.waiter = Some(waiter),
                Err(error) => {
                    tracing::warn!("cannot wait for tokens of the jobserver: {error}");
                    return;
                }
            }
        }
        if let Some(waiter) = &mut self.waiter
            && !waiter.is_asked
        {
            // Refused only if it has panicked, which has been reported.
            waiter.is_asked = waiter.ask.send(()).is_ok();
        }
    }

    fn start_waiter(&self) -> io::Result<Waiter> {
        let (stopped, stop) = io::pipe()?;
        let reader = self.reader.try_clone()?;
        let (ask, asked) = channel();
        let coordinator = self.coordinator.clone();
        let work = move || {
            for () in asked {
                let mut fds = [reader.as_raw_fd(), stopped.as_raw_fd()].map(|fd| libc::pollfd {
                    fd,
                    events: libc::POLLIN,
                    revents: 0,
                });
                while fds.iter().all(|fd| fd.revents == 0) {
                    poll(&mut fds, None);
                }
                if fds[1].revents != 0 || coordinator.send(Message::TokensCame).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("reiver-tokens".into())
            .spawn(work)?;
        Ok(Waiter {
            ask,
            is_asked: false,
            _stop: stop,
        })
    }
}

impl Drop for Tokens {
    /// What is somebody else's goes back.
    fn drop(&mut self) {
        while let Some(token) = self.held.pop() {
            // Where that is gone nobody waits for it.
            let _ = self.writer.write(&[token]);
        }
    }
}

fn offers_any() -> bool {
    VARIABLES.iter().any(|name| {
        let value = std::env::var_os(name).unwrap_or_default();
        value.to_string_lossy().contains("--jobserver-")
    })
}

/// Where the pipe is, in make's words: `R,W` or `fifo:PATH`.
fn address(client: &Client) -> Option<String> {
    let mut command = Command::new("/");
    client.configure(&mut command);
    let flags = command.get_envs().find(|(key, _)| *key == VARIABLES[0]);
    let flags = flags?.1?.to_str()?;
    let mut words = flags.split_ascii_whitespace();
    let address = words.find_map(|word| word.strip_prefix("--jobserver-auth="));
    address.map(str::to_owned)
}

/// The flags that a make was given and our pipe: whoever is under us is to be ours.
fn make_flags(address: &str) -> OsString {
    let given = std::env::var("MAKEFLAGS").unwrap_or_default();
    let is_others = |word: &str| {
        let is_jobs = word.strip_prefix("-j");
        word.starts_with("--jobserver-")
            || is_jobs.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    // What stands behind `--` are variables.
    let (flags, variables) = match given.split_once(" -- ") {
        Some((flags, variables)) => (flags, format!(" -- {variables}")),
        None => (given.as_str(), String::new()),
    };
    let mut kept: Vec<&str> = flags.split(' ').filter(|word| !is_others(word)).collect();
    if kept.first().is_none_or(|first| first.starts_with('-')) {
        // The first word would be taken for letters.
        kept.insert(0, "");
    }
    let kept = kept.join(" ");
    let kept = kept.trim_end();
    format!("{kept} -j --jobserver-fds={address} --jobserver-auth={address}{variables}").into()
}

#[cfg(test)]
mod tests;
