//! What it takes to boot a machine, and how to get it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything is there.
#[derive(Debug)]
pub(crate) struct Requirements {
    pub(crate) qemu: PathBuf,
    pub(crate) kernel: PathBuf,
    /// Statically linked.
    pub(crate) busybox: PathBuf,
    /// What says how hwloc sees a machine.
    pub(crate) lstopo: PathBuf,
}

impl Requirements {
    /// Finds them, or says for each that is missing what it is and how to get it.
    pub(crate) fn find() -> Result<Requirements, Vec<String>> {
        let qemu = on_path("qemu-system-x86_64").ok_or_else(|| {
            "qemu-system-x86_64 is not on the PATH (Debian: apt-get install qemu-system-x86)"
                .to_owned()
        });
        let busybox = on_path("busybox")
            .filter(|path| is_static(path))
            .ok_or_else(|| {
                "no statically linked busybox is on the PATH (Debian: apt-get install busybox-static)"
                    .to_owned()
            });
        let lstopo = on_path(LSTOPO).ok_or_else(|| {
            format!("{LSTOPO} is not on the PATH (Debian: apt-get install hwloc-nox)")
        });
        match (qemu, kernel(), busybox, lstopo) {
            (Ok(qemu), Ok(kernel), Ok(busybox), Ok(lstopo)) => Ok(Requirements {
                qemu,
                kernel,
                busybox,
                lstopo,
            }),
            (qemu, kernel, busybox, lstopo) => {
                let missing = [qemu.err(), kernel.err(), busybox.err(), lstopo.err()];
                Err(missing.into_iter().flatten().collect())
            }
        }
    }
}

/// hwloc's tool, as Debian calls it.
pub(crate) const LSTOPO: &str = "lstopo-no-graphics";

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// True of a program that asks for no loader.
fn is_static(program: &Path) -> bool {
    let asks = |bytes: Vec<u8>| {
        let head = &bytes[..bytes.len().min(4096)];
        head.windows(8).any(|window| window == b"ld-linux")
    };
    fs::read(program).is_ok_and(|bytes| !asks(bytes))
}

/// Where the variable says, else an installed one of Debian's for clouds, which has built in what an
/// emulated machine needs, else one that was unpacked below the target folder.
fn kernel() -> Result<PathBuf, String> {
    if let Some(named) = env::var_os("REIVER_VM_KERNEL") {
        let named = PathBuf::from(named);
        return match named.is_file() {
            true => Ok(named),
            false => Err(format!(
                "REIVER_VM_KERNEL names {}, which is no file",
                named.display()
            )),
        };
    }
    let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../numa-vm");
    let is_for_clouds = |name: &str| name.contains("cloud");
    newest_kernel(Path::new("/boot"), is_for_clouds)
        .or_else(|| newest_kernel(&unpacked, |_| true))
        .ok_or_else(|| {
            "no kernel: neither /boot/vmlinuz-*cloud* nor target/numa-vm/vmlinuz* is there, and \
             REIVER_VM_KERNEL is not set (Debian 13: apt-get install linux-image-cloud-amd64, Debian \
             12: linux-image-6.12-cloud-amd64; or without installing it: just numa-kernel)"
                .to_owned()
        })
}

/// The last by name that can be read.
fn newest_kernel(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let wanted = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("vmlinuz") && is_wanted(&name) && fs::File::open(entry.path()).is_ok()
    });
    wanted.map(|entry| entry.path()).max()
}
