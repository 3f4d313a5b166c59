//! The cgroups that hold jobs to the memory that they state.
//!
//! A run makes one folder in the hierarchy, `reiver-<run>`, and in it one for each attempt, which is
//! gone when that has ended; what outlives its attempt goes where reiver is. Version 2 is the main
//! road: the folder lies beside reiver's own cgroup, for one that holds processes cannot hold others,
//! or in the root. With version 1 it lies in reiver's own.
//!
//! Whoever made a folder holds a lock on it, so that what a killed run has left is known, and removed by
//! the next one. Only what nothing lives in is removed.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::process::Pid;

/// What folders of runs begin with.
const PREFIX: &str = "reiver-";
/// A folder that something has just left may be in use for a moment; nobody is told when that is over, and
/// trying is the only way to know.
const TRIES: u32 = 50;
const TRY_AGAIN: Duration = Duration::from_millis(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A place of a process in the hierarchy that counts memory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    version: Version,
    /// Where the hierarchy is mounted.
    mount: PathBuf,
    /// The process's own folder.
    own: PathBuf,
}

/// The cgroups of one run.
#[derive(Debug)]
pub(super) struct Groups {
    version: Version,
    folder: PathBuf,
    /// Where processes go that outlive their attempts.
    home: PathBuf,
    /// Held as long as the folder is ours.
    _lock: File,
}

/// The cgroup of one attempt.
#[derive(Debug)]
pub(super) struct Group {
    version: Version,
    folder: PathBuf,
    home: PathBuf,
    procs: [PathBuf; 1],
}

impl Groups {
    /// Makes the folder of a run.
    ///
    /// # Errors
    /// Why there can be none, for people.
    pub(super) fn make(run_id: &str) -> Result<Groups, String> {
        let place = Place::of_process("/proc/self".as_ref())?;
        let base = place.base()?;
        let folder = base.join(format!("{PREFIX}{run_id}"));
        let about = |error: io::Error| format!("{}: {error}", folder.display());
        let lock = loop {
            match fs::create_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => result.map_err(about)?,
            }
            let lock = File::open(&folder).map_err(about)?;
            lock_folder(&lock).map_err(about)?;
            // Before it was locked somebody may have taken it for left behind.
            if is_same(&lock, &folder) {
                break lock;
            }
        };
        let groups = Groups {
            version: place.version,
            folder,
            home: place.own,
            _lock: lock,
        };
        if groups.version == Version::Two {
            let file = groups.folder.join("cgroup.subtree_control");
            if let Err(error) = fs::write(&file, "+memory") {
                groups.close();
                return Err(format!("{}: {error}", file.display()));
            }
        }
        Ok(groups)
    }

    /// Makes a cgroup that has so many bytes.
    ///
    /// # Errors
    /// The system's, with the file that it is about.
    pub(super) fn group(&self, name: &str, bytes: u64) -> Result<Group, String> {
        let folder = self.folder.join(name);
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let group = Group {
            version: self.version,
            procs: [folder.join("cgroup.procs")],
            folder,
            home: self.home.clone(),
        };
        let limited = group.limit(bytes);
        if limited.is_err() {
            group.remove();
        }
        limited.map(|()| group)
    }

    /// Removes what is left of the run's.
    pub(super) fn close(&self) {
        for left in folders_in(&self.folder) {
            leave(&left, &self.home);
            remove(&left);
        }
        remove(&self.folder);
    }
}

impl Group {
    fn limit(&self, bytes: u64) -> Result<(), String> {
        let write = |name: &str, value: &str| {
            let file = self.folder.join(name);
            fs::write(&file, value).map_err(|error| format!("{}: {error}", file.display()))
        };
        // What is swapped out is no less: without these, where there is no swap, nothing is lost.
        match self.version {
            Version::Two => {
                write("memory.max", &bytes.to_string())?;
                let _ = write("memory.swap.max", "0");
                // All of a job, or none of it.
                let _ = write("memory.oom.group", "1");
            }
            Version::One => {
                write("memory.limit_in_bytes", &bytes.to_string())?;
                let _ = write("memory.memsw.limit_in_bytes", &bytes.to_string());
            }
        }
        Ok(())
    }

    /// The files that take the number of a process which is to belong to it.
    pub(super) fn procs(&self) -> &[PathBuf] {
        &self.procs
    }

    /// The processes that belong to it.
    pub(super) fn members(&self) -> Vec<Pid> {
        members(&self.folder)
    }

    /// True if the kernel has ended one of its processes for want of memory.
    pub(super) fn has_run_out(&self) -> bool {
        let file = match self.version {
            Version::Two => "memory.events",
            Version::One => "memory.oom_control",
        };
        let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.any(|(key, count)| key == "oom_kill" && count.trim() != "0")
    }

    /// Removes it; what still lives in it goes where reiver is.
    pub(super) fn remove(&self) {
        leave(&self.folder, &self.home);
        remove(&self.folder);
    }
}

/// Removes folders of runs that were killed, as far as nothing lives in them any more.
pub(super) fn sweep() {
    let place = Place::of_process("/proc/self".as_ref());
    let Some(bases) = place.ok().map(|place| place.bases()) else {
        return;
    };
    for folder in bases.iter().flat_map(|base| folders_in(base)) {
        let name = folder.file_name().unwrap_or_default();
        if !name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Ok(lock) = File::open(&folder) else {
            continue;
        };
        if lock_folder(&lock).is_ok() {
            // What something lives in refuses.
            for left in folders_in(&folder) {
                let _ = fs::remove_dir(left);
            }
            let _ = fs::remove_dir(&folder);
        }
    }
}

/// Bytes that the cgroups of this process have left, the least of all that it is in; `None` where there
/// is no limit.
pub(super) fn bytes_left() -> Option<u64> {
    let place = Place::of_process("/proc/self".as_ref()).ok()?;
    let (limit, usage, cache) = match place.version {
        Version::Two => ("memory.max", "memory.current", "inactive_file "),
        Version::One => (
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file ",
        ),
    };
    let left = |folder: &Path| {
        let number = |file: &str| -> Option<u64> {
            fs::read_to_string(folder.join(file))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let cached = stat
            .lines()
            .find_map(|line| line.strip_prefix(cache)?.parse::<u64>().ok());
        let used = number(usage)?.saturating_sub(cached.unwrap_or(0));
        Some(number(limit)?.saturating_sub(used))
    };
    let folders = place
        .own
        .ancestors()
        .take_while(|folder| folder.starts_with(&place.mount));
    folders.filter_map(left).min()
}

impl Place {
    /// # Errors
    /// Why there is none, for people.
    fn of_process(process: &Path) -> Result<Place, String> {
        let read = |name: &str| {
            let file = process.join(name);
            fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))
        };
        let (groups, mounts) = (read("cgroup")?, read("mountinfo")?);
        Place::parse(&groups, &mounts)
            .ok_or_else(|| "no cgroups that count memory are mounted".to_owned())
    }

    /// Of `/proc/PID/cgroup` and `/proc/PID/mountinfo`. A controller is in one version only: where
    /// version 1 has memory, version 2 does not.
    fn parse(groups: &str, mounts: &str) -> Option<Place> {
        let path_in = |version| {
            groups.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                let is_it = match version {
                    Version::One => controllers.split(',').any(|one| one == "memory"),
                    Version::Two => controllers.is_empty(),
                };
                is_it.then_some(path)
            })
        };
        [Version::One, Version::Two]
            .into_iter()
            .find_map(|version| {
                let path = path_in(version)?;
                mounts.lines().find_map(|line| {
                    let (about, kind) = line.split_once(" - ")?;
                    let mut kind = kind.split(' ');
                    let is_it = match (version, kind.next()?) {
                        (Version::Two, "cgroup2") => true,
                        (Version::One, "cgroup") => {
                            let options = kind.nth(1)?;
                            options.split(',').any(|option| option == "memory")
                        }
                        _ => false,
                    };
                    let mut about = about.split(' ').skip(3);
                    let (root, mount) = (about.next()?, unescaped(about.next()?));
                    let below = Path::new(path).strip_prefix(root).ok()?;
                    // Outside of what is mounted here.
                    let is_inside = !below.starts_with("..");
                    (is_it && is_inside).then(|| Place {
                        version,
                        own: match below.as_os_str().is_empty() {
                            true => mount.clone(),
                            false => mount.join(below),
                        },
                        mount,
                    })
                })
            })
    }

    /// Where folders of runs may lie.
    fn bases(&self) -> Vec<PathBuf> {
        let mut bases = vec![self.own.clone()];
        if self.version == Version::Two && self.own != self.mount {
            bases.extend(self.own.parent().map(Path::to_owned));
        }
        bases
    }

    /// Where the folder of a run goes.
    fn base(&self) -> Result<PathBuf, String> {
        if self.version == Version::One {
            return Ok(self.own.clone());
        }
        let has_memory = |folder: &Path, file: &str| {
            let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
            text.split_whitespace()
                .any(|controller| controller == "memory")
        };
        // Only the root may hold processes and hand its controllers on.
        let is_root = !self.own.join("cgroup.type").exists();
        if is_root || has_memory(&self.own, "cgroup.subtree_control") {
            if !has_memory(&self.own, "cgroup.subtree_control") {
                let why = match has_memory(&self.own, "cgroup.controllers") {
                    true => "does not hand on",
                    false => "does not have",
                };
                return Err(format!(
                    "{} {why} the controller `memory`",
                    self.own.display()
                ));
            }
            return Ok(self.own.clone());
        }
        let parent = self.own.parent().filter(|_| self.own != self.mount);
        let Some(parent) = parent else {
            return Err(format!(
                "{} holds processes, and what is above it is not to be seen",
                self.own.display()
            ));
        };
        if !has_memory(parent, "cgroup.subtree_control") {
            let parent = parent.display();
            return Err(format!("{parent} does not hand on the controller `memory`"));
        }
        // Beside it a job would be free of them.
        let limits = [
            ("memory.max", "max"),
            ("memory.high", "max"),
            ("memory.swap.max", "max"),
            ("cpu.max", "max"),
            ("pids.max", "max"),
            ("cpuset.cpus", ""),
            ("cpuset.mems", ""),
        ];
        for (file, free) in limits {
            let text = fs::read_to_string(self.own.join(file)).unwrap_or_default();
            let word = text.split_whitespace().next().unwrap_or(free);
            if word != free {
                return Err(format!(
                    "{} has limits of its own: {file}",
                    self.own.display()
                ));
            }
        }
        Ok(parent.to_owned())
    }
}

/// A path as mounts are listed: blanks and the like are three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut path = text.to_owned();
    for (escape, letter) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        path = path.replace(escape, letter);
    }
    path.into()
}

fn lock_folder(folder: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open, and no memory is passed.
    let result = unsafe { libc::flock(folder.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn is_same(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (file, path) = (
        file.metadata().map(identity),
        fs::metadata(path).map(identity),
    );
    file.is_ok_and(|file| path.is_ok_and(|path| file == path))
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

fn members(folder: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Has all that lives in a folder go to another.
fn leave(folder: &Path, home: &Path) {
    for _ in 0..TRIES {
        let members = members(folder);
        if members.is_empty() {
            return;
        }
        for member in members {
            // It may have ended.
            let _ = fs::write(home.join("cgroup.procs"), member.to_string());
        }
    }
}

fn remove(folder: &Path) {
    for _ in 0..TRIES {
        match fs::remove_dir(folder) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => thread::sleep(TRY_AGAIN),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(groups: &str, mounts: &str) -> Option<(Version, String)> {
        let place = Place::parse(groups, mounts)?;
        Some((place.version, place.own.to_str().expect("text").to_owned()))
    }

    #[test]
    fn a_place_is_found_in_either_version() {
        let two = "30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let one = "31 20 0:27 / /cg\\040mem rw - cgroup cgroup rw,memory\n";
        let own = |version, path: &str| Some((version, path.to_owned()));
        assert_eq!(
            place("0::/a/b\n", two),
            own(Version::Two, "/sys/fs/cgroup/a/b")
        );
        assert_eq!(place("0::/\n", two), own(Version::Two, "/sys/fs/cgroup"));
        let both = format!("{two}{one}");
        let groups = "5:cpu,cpuacct:/x\n4:memory:/y\n0::/z\n";
        assert_eq!(place(groups, &both), own(Version::One, "/cg mem/y"));
        assert_eq!(
            place("0::/z\n", &both),
            own(Version::Two, "/sys/fs/cgroup/z")
        );
    }

    #[test]
    fn what_is_not_mounted_here_is_no_place() {
        let part = "30 20 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 c rw\n";
        let own = Some((Version::Two, "/sys/fs/cgroup/x".to_owned()));
        assert_eq!(place("0::/docker/abc/x\n", part), own);
        assert_eq!(place("0::/docker/other\n", part), None);
        assert_eq!(place("0::/../x\n", &part.replace("/docker/abc", "/")), None);
        assert_eq!(place("0::/x\n", ""), None);
        assert_eq!(place("", part), None);
    }
}
