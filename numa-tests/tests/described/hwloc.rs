//! What hwloc makes of a machine and what we make of it, fact by fact: of this machine, of snapshots,
//! of what it writes, and of descriptions.
//!
//! hwloc is asked twice where it can be: its tool `lstopo` for a file, which our reader of files reads,
//! and its library, where it is built in. Where neither is there, that is said.

use std::env;
use std::process::Command;

use reiver_numa_tests::{fixtures, skipped, snapshots};
use reiver_topology::{Topology, TopologyError};

use crate::machines::{DESCRIPTIONS, synthetic};
use reiver_numa_tests::facts::differences;

/// A difference, and why either is right in its way.
struct Explained {
    machine: &'static str,
    difference: &'static str,
    why: &'static str,
}

/// Where sysfs and hwloc do not say the same of a snapshot.
const OF_SNAPSHOTS: [Explained; 1] = [Explained {
    machine: "nvidiagpunumanodes",
    difference: "nodes only in ours: 250-255",
    why: "the memory of six graphics cards: the kernel would give it to anybody who asks for a node's \
          memory, so it is a node; hwloc hides it unless HWLOC_KEEP_NVIDIA_GPU_NUMA_NODES is set, for \
          nobody is to ask by accident",
}];

/// What two readers say of a snapshot differs in what is explained, and in no more.
fn check_snapshot(name: &str, ours: &Topology, theirs: &Topology) {
    let explained = OF_SNAPSHOTS.iter().filter(|known| known.machine == name);
    let (expected, why): (Vec<&str>, Vec<&str>) =
        explained.map(|known| (known.difference, known.why)).unzip();
    assert_eq!(differences(ours, theirs), expected, "{name} {why:?}");
}

/// hwloc gives a size to nodes and caches that are described without; we do not know of any.
fn check_description(description: &str, ours: &Topology, theirs: &Topology) {
    let mut differences = differences(ours, theirs);
    for (told, assumed) in [("memory=", "memory of nodes"), ("size=", "sizes of caches")] {
        if !description.contains(told) {
            differences.retain(|line| !line.starts_with(assumed));
        }
    }
    assert_eq!(differences, [""; 0], "{description}");
}

/// What `lstopo` writes of something; `None`, said aloud, where it is not installed.
fn lstopo(arguments: &[&str]) -> Option<String> {
    let output = Command::new("lstopo-no-graphics")
        .args(arguments)
        .args(["--disallowed", "--of", "xml"])
        .output();
    let Ok(output) = output else {
        skipped("a comparison with hwloc: lstopo-no-graphics is not installed");
        return None;
    };
    assert!(output.status.success(), "lstopo {arguments:?}: {output:?}");
    Some(String::from_utf8(output.stdout).expect("lstopo writes text"))
}

fn from_text(text: &str) -> Topology {
    Topology::from_xml_text(text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_snapshot_is_to_sysfs_what_it_is_to_lstopo() {
    for snapshot in snapshots().iter() {
        let root = snapshot.root.to_str().expect("a folder of ours");
        let Some(text) = lstopo(&["-i", root, "--if", "fsroot"]) else {
            return;
        };
        let ours = Topology::from_sysfs(&snapshot.root).expect("a machine");
        check_snapshot(&snapshot.name, &ours, &from_text(&text));
    }
}

#[test]
fn descriptions_are_the_machines_that_lstopo_makes_of_them() {
    let fixtures = fixtures().map(|(_, description)| {
        let (levels, _) = description
            .split_once(" distances=")
            .expect("all have them");
        levels.to_owned()
    });
    for description in DESCRIPTIONS.map(str::to_owned).into_iter().chain(fixtures) {
        let Some(text) = lstopo(&["-i", &description]) else {
            return;
        };
        check_description(&description, &synthetic(&description), &from_text(&text));
    }
}

/// The machine that hwloc's library sees; `None`, said aloud, where it is not built in.
fn library() -> Option<Topology> {
    match Topology::from_hwloc() {
        Ok(machine) => Some(machine),
        Err(TopologyError::NoHwloc) => {
            skipped(
                "a comparison with hwloc's library: feature reiver-topology/hwloc is not built in",
            );
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn this_machine_is_to_sysfs_what_it_is_to_hwlocs_library() {
    let Some(theirs) = library() else { return };
    let ours = Topology::detect().expect("this machine");
    assert!(theirs.is_this_machine());
    let differences = differences(&ours, &theirs);
    // A virtual machine may be given memory, and lose it, between the two.
    let lasting = differences
        .iter()
        .filter(|line| !line.starts_with("memory of"));
    assert_eq!(lasting.collect::<Vec<_>>(), [""; 0]);
}

/// Runs a test of this file, which is for that alone, in a process of its own: hwloc takes what it is to
/// read from the environment.
fn in_a_process(test: &str, environment: &[(&str, &str)]) {
    let own = env::current_exe().expect("this test");
    let output = Command::new(own)
        .args(["--exact", test])
        .envs(environment.iter().copied())
        .output();
    let output = output.expect("this test starts again");
    let name = environment[0].1;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{name}: {said}");
    assert!(said.contains("1 passed"), "{said}");
}

/// Where such a process finds what its snapshot is called.
const NAME: &str = "REIVER_TEST_SNAPSHOT";

#[test]
fn every_snapshot_is_to_sysfs_what_it_is_to_hwlocs_library() {
    if library().is_none() {
        return;
    }
    for snapshot in snapshots().iter() {
        let root = snapshot.root.to_str().expect("a folder of ours");
        // Left alone it asks the CPUs it runs on as well, though they are another machine's.
        let apart = ("HWLOC_COMPONENTS", "-x86");
        let environment = [
            (NAME, snapshot.name.as_str()),
            ("HWLOC_FSROOT", root),
            apart,
        ];
        in_a_process("hwloc::one_snapshot", &environment);
    }
}

/// In a process of its own.
#[test]
fn one_snapshot() {
    let (Ok(name), Ok(root)) = (env::var(NAME), env::var("HWLOC_FSROOT")) else {
        return;
    };
    let theirs = Topology::from_hwloc().expect("hwloc is built in");
    assert!(!theirs.is_this_machine());
    let ours = Topology::from_sysfs(root).expect("a machine");
    check_snapshot(&name, &ours, &theirs);
}

#[test]
fn descriptions_are_the_machines_that_hwlocs_library_makes_of_them() {
    if library().is_none() {
        return;
    }
    for text in DESCRIPTIONS {
        in_a_process("hwloc::one_description", &[("HWLOC_SYNTHETIC", text)]);
    }
}

/// In a process of its own.
#[test]
fn one_description() {
    let Ok(description) = env::var("HWLOC_SYNTHETIC") else {
        return;
    };
    let theirs = Topology::from_hwloc().expect("hwloc is built in");
    check_description(&description, &synthetic(&description), &theirs);
}
