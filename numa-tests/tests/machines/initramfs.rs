//! The file system that a machine starts with: this program and what it has mapped, and a shell.
//!
//! The format is the kernel's "newc" cpio, as in its `Documentation/driver-api/early-userspace/
//! buffer-format.rst`: for each file a header of hexadecimal numbers, its name, its content.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use crate::requirements::{LSTOPO, Requirements};

/// What busybox is called by in there.
const APPLETS: [&str; 4] = ["sh", "cat", "grep", "sleep"];

/// Writes the file system to `path`.
pub(crate) fn write(path: &Path, requirements: &Requirements) -> io::Result<()> {
    let mut tree = Tree::default();
    for folder in ["dev", "proc", "sys", "tmp"] {
        tree.add(folder, Entry::Folder);
    }
    tree.add("dev/console", Entry::Console);
    tree.add("init", Entry::Program(fs::read(env::current_exe()?)?));
    tree.add("bin/reiver", Entry::Link("/init"));
    tree.add(
        &format!("bin/{LSTOPO}"),
        Entry::Program(fs::read(&requirements.lstopo)?),
    );
    let mut libraries = mapped_libraries()?;
    libraries.extend(loaded_by(&requirements.lstopo)?);
    for library in libraries {
        let content = fs::read(&library)?;
        let name = library.rsplit('/').next().unwrap_or(&library);
        if name.starts_with("ld-linux") {
            // Programs name their loader by the path that the ABI fixes, a link on the host.
            tree.add(&format!("lib64/{name}"), Entry::Program(content));
        } else {
            tree.add(library.trim_start_matches('/'), Entry::Program(content));
        }
    }
    tree.add(
        "bin/busybox",
        Entry::Program(fs::read(&requirements.busybox)?),
    );
    for applet in APPLETS {
        tree.add(&format!("bin/{applet}"), Entry::Link("busybox"));
    }
    let mut file = io::BufWriter::new(fs::File::create(path)?);
    tree.write(&mut file)?;
    file.flush()
}

/// The shared libraries of this process, the loader among them.
fn mapped_libraries() -> io::Result<Vec<String>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut libraries: Vec<String> = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| line[at..].to_owned()))
        .filter(|path| path.contains(".so"))
        .collect();
    libraries.sort();
    libraries.dedup();
    Ok(libraries)
}

/// The shared libraries that another program loads.
fn loaded_by(program: &Path) -> io::Result<Vec<String>> {
    let said = Command::new("ldd").arg(program).output()?;
    let said = String::from_utf8_lossy(&said.stdout);
    let paths = said.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(str::to_owned).collect())
}

enum Entry {
    Folder,
    Program(Vec<u8>),
    Link(&'static str),
    /// What the first process has for its streams.
    Console,
}

#[derive(Default)]
struct Tree(BTreeMap<String, Entry>);

impl Tree {
    fn add(&mut self, path: &str, entry: Entry) {
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].to_owned()).or_insert(Entry::Folder);
        }
        self.0.insert(path.to_owned(), entry);
    }

    /// In order, so that folders come before what is in them.
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for (number, (path, entry)) in (1..).zip(&self.0) {
            let (mode, content) = match entry {
                Entry::Folder => (0o040_755, &[][..]),
                Entry::Program(content) => (0o100_755, content.as_slice()),
                Entry::Link(target) => (0o120_777, target.as_bytes()),
                Entry::Console => (0o020_600, &[][..]),
            };
            let device = match entry {
                Entry::Console => (5, 1),
                _ => (0, 0),
            };
            write_entry(out, number, path, mode, device, content)?;
        }
        write_entry(out, 0, "TRAILER!!!", 0, (0, 0), &[])
    }
}

fn write_entry(
    out: &mut impl Write,
    number: u32,
    path: &str,
    mode: u32,
    device: (u32, u32),
    content: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    let name_length = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
    let (owner, group, links, time, checksum) = (0, 0, 1, 0, 0);
    let fields = [
        number,
        mode,
        owner,
        group,
        links,
        time,
        length,
        0,
        0,
        device.0,
        device.1,
        name_length,
        checksum,
    ];
    let mut header = String::from("070701");
    for field in fields {
        header.push_str(&format!("{field:08x}"));
    }
    header.push_str(path);
    header.push('\0');
    for part in [header.as_bytes(), content] {
        out.write_all(part)?;
        out.write_all(&[0; 3][..part.len().wrapping_neg() % 4])?;
    }
    Ok(())
}
