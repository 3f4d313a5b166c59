//! Every machine that the rules are held against.

use std::sync::OnceLock;

use reiver_numa_tests::{fixtures, snapshots, xml_files};
use reiver_topology::Topology;

/// In hwloc's words, and such as it writes itself. `hwloc.rs` has it read them, too.
pub(crate) const DESCRIPTIONS: [&str; 14] = [
    "PU:1",
    "Core:4 PU:2",
    "Package:2 NUMANode:4 L3:2 Core:4 PU:2",
    "pack:2 numa:2(memory=2GB indexes=0,2,1,3) core:2 pu:2(indexes=node:core)",
    "L2:8 Core:2 PU:2",
    "Package:2 Die:2 L2:2 L1i:1 L1d:1 Core:2 PU:1",
    "NUMANode:8 Core:16 PU:2",
    "Package:2 [NUMANode(memory=16GiB)] [NUMANode(memory=4GiB)] Core:4 PU:1",
    "Package:2 [NUMANode(memory=1GB)] L3:2 [NUMANode(memory=2GB)] Core:2 PU:1",
    "[NUMANode(memory=3GB)] Package:2 [NUMANode(memory=1GB indexes=5,7,9)] Core:2 PU:2(indexes=2*4)",
    "Package:4 L3Cache:2(size=5240832) [NUMANode(memory=8587735040 indexes=0,1,2,33,34,45,72,73)] \
     L2Cache:6(size=524288) L1dCache:1(size=65536) L1iCache:1(size=65536) Core:1 PU:1",
    "Group:4 Group:2 [NUMANode(memory=59861106688 indexes=0,1,4,5,8,9,12,13)] Package:8 \
     L3Cache:1(size=4194304) L2Cache:1(size=262144) Core:1 PU:4",
    "Group:4 [NUMANode(memory=135271940096)] Package:4 L3Cache:1(size=16777216) \
     L2Cache:3(size=3145728) Core:2 PU:1(indexes=6*4:1*6:24*4)",
    "Package:4 [NUMANode(memory=137425154048)] L3Cache:1(size=31457280) L2Cache:10(size=262144) \
     Core:1 PU:1(indexes=10*4:1*10)",
];

/// What hwloc's descriptions do not have, or mean otherwise: distances, and levels without a type (of
/// three, to hwloc the second is nodes and there are no cores; beside levels with one it refuses them).
const OF_OUR_OWN: [&str; 4] = [
    "2 4 2",
    "node:2 2 2 2",
    "NUMANode:4 Core:2 PU:1 distances=10,16,22,16;16,10,16,22;22,16,10,16;16,22,16,10",
    "[NUMANode(memory=1GB)] NUMANode:2 Core:2 PU:2 distances=10,20,40;20,10,17;40,18,10",
];

/// Each with what it is called. Those beside the checkout are left out, aloud, where they are missing.
pub(crate) fn all() -> &'static [(String, Topology)] {
    static ALL: OnceLock<Vec<(String, Topology)>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = Vec::new();
        for description in DESCRIPTIONS.into_iter().chain(OF_OUR_OWN) {
            all.push((description.to_owned(), synthetic(description)));
        }
        for (name, description) in fixtures() {
            all.push((name.to_owned(), synthetic(&description)));
        }
        for path in xml_files() {
            let name = path.file_name().expect("a file").to_string_lossy();
            let machine = Topology::from_xml(&path).unwrap_or_else(|error| panic!("{error}"));
            all.push((name.into_owned(), machine));
        }
        for snapshot in snapshots().iter() {
            let name = snapshot.name.clone();
            let machine = Topology::from_sysfs(&snapshot.root);
            let machine = machine.unwrap_or_else(|error| panic!("{name}: {error}"));
            all.push((name, machine));
        }
        all
    })
}

pub(crate) fn synthetic(description: &str) -> Topology {
    Topology::synthetic(description).unwrap_or_else(|error| panic!("{error}"))
}
