//! Reads a machine from the kernel's files under `<root>/sys/devices/system/{cpu,node}`.
//!
//! CPUs are counted from their own folders, never from nodes: a node without memory keeps its
//! CPUs here, a node without CPUs adds none. Files that are missing or garbage cost what they
//! would have said, and nothing else; old kernels print masks where new ones print lists.
//!
//! A running kernel is asked for no more than is needed, for each look costs some 6 µs: its list of
//! nodes stands for their folders, one CPU of a core speaks for the others, caches
//! and speeds of memory are read apart. A snapshot is read in full.

mod caches;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::machine::{Accesses, Parts, mean};
use crate::{Cpu, CpuId, CpuSet, MemoryAccess, Node, NodeId, TopologyError};

pub(crate) use caches::caches;

/// Whose files lie under a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Those of the running kernel, which agree with each other.
    Kernel,
    /// A copy, which may be old, partial or made up.
    Snapshot,
}

/// The machine under `root`; of its online CPUs those that are `allowed`, or all. With the former,
/// which only the running kernel knows, caches are left to [`caches`].
pub(crate) fn read(root: &Path, allowed: Option<&CpuSet>) -> Result<Parts, TopologyError> {
    let source = match allowed {
        Some(_) => Source::Kernel,
        None => Source::Snapshot,
    };
    let cpu_folder = cpu_folder(root);
    let online = online_cpus(&cpu_folder, source)?;
    let usable = match allowed {
        Some(allowed) => online.intersection(allowed),
        None => online,
    };
    if usable.is_empty() {
        return Err(TopologyError::NoCpus {
            origin: cpu_folder.display().to_string(),
        });
    }

    let node_folder = node_folder(root);
    let listed = text(node_folder.join("online")).and_then(|list| list.parse().ok());
    let mut nodes = match (source, &listed) {
        (Source::Kernel, Some(listed)) => nodes_in(&node_folder, listed, &usable),
        _ => None,
    }
    .unwrap_or_else(|| nodes(&node_folder, &usable));
    let distances = match (source, nodes.as_slice()) {
        // No kernel gives a node another distance to itself than the one that is assumed.
        (Source::Kernel, [_]) => BTreeMap::new(),
        _ => distances(&node_folder, &nodes, listed.as_ref()),
    };
    if nodes.is_empty() {
        // A kernel without NUMA.
        nodes.push(Node {
            id: NodeId(0),
            cpus: CpuSet::new(),
            memory_bytes: memory_bytes(&root.join("proc/meminfo")),
        });
    }
    let (caches, accesses) = match source {
        Source::Kernel => Default::default(),
        Source::Snapshot => (
            caches::caches_in(&cpu_folder, &usable, source),
            accesses(root, &nodes),
        ),
    };
    Ok(Parts {
        cpus: cpus(&cpu_folder, &usable, source),
        nodes,
        caches,
        accesses,
        rest_is_left: source == Source::Kernel,
        distances,
    })
}

fn cpu_folder(root: &Path) -> PathBuf {
    root.join("sys/devices/system/cpu")
}

fn node_folder(root: &Path) -> PathBuf {
    root.join("sys/devices/system/node")
}

/// CPUs that are online: by the kernel's list, else by each CPU's own file.
fn online_cpus(folder: &Path, source: Source) -> Result<CpuSet, TopologyError> {
    let online = text(folder.join("online")).and_then(|list| list.parse::<CpuSet>().ok());
    let online = match (source, online) {
        (Source::Kernel, Some(online)) => return Ok(online),
        (_, online) => online,
    };
    let present: CpuSet = numbered(folder, "cpu")
        .map_err(|source| TopologyError::Unreadable {
            path: folder.to_owned(),
            source,
        })?
        .into_iter()
        .map(CpuId)
        .collect();
    if let Some(online) = online {
        // The list of a running kernel is right; a snapshot may lack the folder of some.
        return Ok(online.intersection(&present));
    }
    // Kernels before 2.6.26 have no list. A CPU that cannot be taken offline has no file either,
    // and one that is offline has no `topology` folder.
    let any_topology = present
        .iter()
        .any(|id| cpu_path(folder, id).join("topology").is_dir());
    let is_online = |id: &CpuId| match text(cpu_path(folder, *id).join("online")).as_deref() {
        Some(state) => state != "0",
        None => !any_topology || cpu_path(folder, *id).join("topology").is_dir(),
    };
    Ok(present.iter().filter(is_online).collect())
}

/// The CPUs, each with the lowest CPU number of its core as its core until the machine numbers
/// them; their nodes are settled later.
fn cpus(folder: &Path, usable: &CpuSet, source: Source) -> Vec<Cpu> {
    let mut cpus: Vec<Cpu> = Vec::new();
    // What a sibling has said: core and package.
    let mut said: BTreeMap<CpuId, (u32, u32)> = BTreeMap::new();
    for id in usable.iter() {
        let (core, package) = said.remove(&id).unwrap_or_else(|| {
            let topology = cpu_path(folder, id).join("topology");
            let siblings = set(&topology, "core_cpus_list", "core_cpus")
                .or_else(|| set(&topology, "thread_siblings_list", "thread_siblings"));
            let siblings = siblings.unwrap_or_default();
            let core = siblings.first().unwrap_or(id).0;
            // -1 where the firmware does not say.
            let package = text(topology.join("physical_package_id"))
                .and_then(|number| number.parse().ok())
                .unwrap_or(0);
            if source == Source::Kernel {
                said.extend(siblings.iter().map(|sibling| (sibling, (core, package))));
            }
            (core, package)
        });
        cpus.push(Cpu {
            id,
            node: NodeId(0),
            package,
            core,
        });
    }
    cpus
}

/// The nodes that have a folder.
fn nodes(folder: &Path, usable: &CpuSet) -> Vec<Node> {
    let ids = numbered(folder, "node").unwrap_or_default();
    let node = |number| {
        let path = node_path(folder, number);
        let cpus = cpus_of_node(&path).unwrap_or_default();
        node(number, &path, &cpus, usable)
    };
    ids.into_iter().map(node).collect()
}

/// The nodes that are listed; `None` if there are none, or one does not say which CPUs it has.
fn nodes_in(folder: &Path, listed: &CpuSet, usable: &CpuSet) -> Option<Vec<Node>> {
    let node = |number: CpuId| {
        let path = node_path(folder, number.0);
        let cpus = cpus_of_node(&path)?;
        Some(node(number.0, &path, &cpus, usable))
    };
    let nodes: Vec<Node> = listed.iter().map(node).collect::<Option<_>>()?;
    (!nodes.is_empty()).then_some(nodes)
}

fn node(number: u32, path: &Path, cpus: &CpuSet, usable: &CpuSet) -> Node {
    Node {
        id: NodeId(number),
        cpus: cpus.intersection(usable),
        memory_bytes: memory_bytes(&path.join("meminfo")),
    }
}

fn node_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("node{number}"))
}

fn cpus_of_node(path: &Path) -> Option<CpuSet> {
    set(path, "cpulist", "cpumap")
}

/// `MemTotal` of a `meminfo` file, of a node or of the machine.
fn memory_bytes(path: &Path) -> u64 {
    let kib = text(path).and_then(|meminfo| {
        let (_, rest) = meminfo.split_once("MemTotal:")?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    });
    kib.unwrap_or(0).saturating_mul(1024)
}

/// A node's file has a column for each *online* node, in their order, not one for each number.
fn distances(
    folder: &Path,
    nodes: &[Node],
    listed: Option<&CpuSet>,
) -> BTreeMap<(NodeId, NodeId), u32> {
    let columns: Vec<NodeId> = nodes
        .iter()
        .map(|node| node.id)
        .filter(|id| listed.is_none_or(|listed| listed.contains(CpuId(id.0))))
        .collect();
    let mut distances = BTreeMap::new();
    for &from in &columns {
        let row: Vec<u32> = text(folder.join(format!("node{from}/distance")))
            .map(|row| {
                row.split_whitespace()
                    .map_while(|word| word.parse().ok())
                    .collect()
            })
            .unwrap_or_default();
        if row.len() == columns.len() {
            distances.extend(columns.iter().map(|&to| (from, to)).zip(row));
        }
    }
    distances
}

/// How fast the memory of each node is to CPUs of others: the kernel says it of the nodes that are
/// nearest to it, in its numbers for them all, 0 where the firmware gives none.
pub(crate) fn accesses(root: &Path, nodes: &[Node]) -> Accesses {
    let mut accesses = Accesses::new();
    for to in nodes {
        let of_node = node_path(&node_folder(root), to.id.0);
        // Class 1 is of CPUs alone, class 0 may be of a device that is nearer than they are. Kernels
        // before 5.10 have class 0 only.
        let initiators = ["access1/initiators", "access0/initiators"]
            .iter()
            .map(|class| of_node.join(class))
            .find_map(|class| Some((numbered(&class, "node").ok()?, class)));
        let Some((from, class)) = initiators else {
            continue;
        };
        let number = |file| {
            let number: u64 = text(class.join(file))?.parse().ok()?;
            Some(number).filter(|&number| number > 0)
        };
        let access = MemoryAccess {
            bandwidth_mib_s: mean(number("read_bandwidth"), number("write_bandwidth")),
            latency_ns: mean(number("read_latency"), number("write_latency")),
        };
        if access != MemoryAccess::default() {
            let from = from.into_iter().map(NodeId);
            let known = from.filter(|from| nodes.iter().any(|node| node.id == *from));
            accesses.extend(known.map(|from| ((from, to.id), access)));
        }
    }
    accesses
}

fn cpu_path(folder: &Path, id: CpuId) -> PathBuf {
    folder.join(format!("cpu{id}"))
}

/// The text of a file without what surrounds it: some kernels end a list in a NUL byte.
fn text(path: impl AsRef<Path>) -> Option<String> {
    let mut file = fs::File::open(path).ok()?;
    // As much as the kernel gives at once.
    let mut page = [0; 4096];
    let mut bytes = Vec::new();
    loop {
        let read = file.read(&mut page).ok()?;
        bytes.extend_from_slice(&page[..read]);
        // One that ends in a line, and has left room, has said all.
        let is_whole = read < page.len() && bytes.ends_with(b"\n");
        if read == 0 || is_whole {
            break;
        }
    }
    let text = str::from_utf8(&bytes).ok()?;
    let text = text.trim_matches(|letter: char| letter.is_whitespace() || letter == '\0');
    Some(text.to_owned())
}

/// A set that new kernels give as a list and old ones as a mask.
fn set(folder: &Path, list: &str, mask: &str) -> Option<CpuSet> {
    let from_list = text(folder.join(list)).and_then(|text| text.parse().ok());
    from_list.or_else(|| CpuSet::from_mask_str(&text(folder.join(mask))?).ok())
}

/// The numbers of the entries `<prefix>N` of a folder, ascending.
fn numbered(folder: &Path, prefix: &str) -> std::io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(prefix)?.parse::<u32>().ok());
        numbers.extend(number.filter(|&number| number < 1 << 20));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Topology;

    /// A machine in a folder, written file by file.
    struct Described(tempfile::TempDir);

    impl Described {
        fn new(files: &[(&str, &str)]) -> Described {
            let folder = tempfile::tempdir().expect("a temporary folder");
            for (path, text) in files {
                let path = folder.path().join("sys/devices/system").join(path);
                fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
                fs::write(path, text).expect("a file");
            }
            Described(folder)
        }

        fn topology(&self) -> Topology {
            Topology::from_sysfs(self.0.path()).expect("a machine")
        }
    }

    fn shape(machine: &Topology) -> Vec<(u32, String)> {
        machine
            .nodes()
            .map(|id| (id.0, machine.node(id).expect("listed").cpus.to_string()))
            .collect()
    }

    #[test]
    fn a_kernel_without_numa_is_one_node() {
        let machine = Described::new(&[
            ("cpu/online", "0-1"),
            ("cpu/cpu0/topology/physical_package_id", "0"),
            ("cpu/cpu1/topology/physical_package_id", "0"),
        ])
        .topology();
        assert_eq!(shape(&machine), [(0, "0-1".to_owned())]);
        assert_eq!(machine.distance(NodeId(0), NodeId(0)), 10);
    }

    #[test]
    fn masks_serve_where_lists_are_missing() {
        let machine = Described::new(&[
            ("cpu/cpu0/topology/thread_siblings", "00000005"),
            ("cpu/cpu1/topology/thread_siblings", "0000000a"),
            ("cpu/cpu2/topology/thread_siblings", "00000005"),
            ("cpu/cpu3/topology/thread_siblings", "0000000a"),
            ("node/node0/cpumap", "00000000,00000005"),
            ("node/node1/cpumap", "00000000,0000000a"),
        ])
        .topology();
        assert_eq!(
            shape(&machine),
            [(0, "0,2".to_owned()), (1, "1,3".to_owned())]
        );
        assert_eq!(
            machine
                .cpus()
                .iter()
                .map(|cpu| cpu.core)
                .collect::<Vec<_>>(),
            [0, 1, 0, 1]
        );
    }

    #[test]
    fn distance_columns_are_the_online_nodes_in_order() {
        let machine = Described::new(&[
            ("cpu/online", "0-1"),
            ("cpu/cpu0/topology/x", ""),
            ("cpu/cpu1/topology/x", ""),
            ("node/online", "0,4"),
            ("node/node0/cpulist", "0"),
            ("node/node0/distance", "10 32"),
            ("node/node4/cpulist", "1"),
            ("node/node4/distance", "33 10"),
        ])
        .topology();
        assert_eq!(machine.distance(NodeId(0), NodeId(4)), 32);
        assert_eq!(machine.distance(NodeId(4), NodeId(0)), 33);
        assert_eq!(machine.nearest_nodes(NodeId(4)), [NodeId(0)]);
    }

    #[test]
    fn offline_cpus_are_out_also_when_it_is_cpu_0() {
        let machine = Described::new(&[
            ("cpu/cpu0/online", "0"),
            ("cpu/cpu1/online", "1"),
            ("cpu/cpu1/topology/thread_siblings_list", "1"),
            ("cpu/cpu2/topology/thread_siblings_list", "2"),
            ("cpu/cpu3/cache/index0/level", "1"),
            ("node/node0/cpulist", "0-3"),
        ])
        .topology();
        assert_eq!(shape(&machine), [(0, "1-2".to_owned())]);
    }

    #[test]
    fn a_node_of_memory_alone_has_no_cpus_and_none_is_counted_twice() {
        let machine = Described::new(&[
            ("cpu/online", "0-1"),
            ("cpu/cpu0/topology/x", ""),
            ("cpu/cpu1/topology/x", ""),
            ("node/node0/cpulist", "0-1"),
            ("node/node0/meminfo", "Node 0 MemTotal:  1024 kB"),
            ("node/node2/cpulist", "\n"),
            ("node/node2/meminfo", "Node 2 MemTotal:  2048 kB"),
            ("node/node3/cpulist", "1"),
        ])
        .topology();
        assert_eq!(
            shape(&machine),
            [(0, "0-1".into()), (2, String::new()), (3, String::new())]
        );
        assert_eq!(
            machine.node(NodeId(2)).expect("listed").memory_bytes,
            2 << 20
        );
    }

    #[test]
    fn cpus_that_no_node_names_stay_with_their_package() {
        let machine = Described::new(&[
            ("cpu/online", "0-3"),
            ("cpu/cpu0/topology/physical_package_id", "0"),
            ("cpu/cpu1/topology/physical_package_id", "1"),
            ("cpu/cpu2/topology/physical_package_id", "1"),
            ("cpu/cpu3/topology/physical_package_id", "9"),
            ("node/node1/cpulist", "0\n\0"),
            ("node/node2/cpulist", "1"),
        ])
        .topology();
        assert_eq!(
            shape(&machine),
            [(1, "0,3".to_owned()), (2, "1-2".to_owned())]
        );
    }

    #[test]
    fn speeds_of_memory_are_those_from_cpus_where_the_kernel_tells_them_apart() {
        let machine = Described::new(&[
            ("cpu/cpu0/topology/x", ""),
            ("cpu/cpu1/topology/x", ""),
            ("node/online", "0-2"),
            ("node/node0/cpulist", "0"),
            ("node/node1/cpulist", "1"),
            ("node/node2/cpulist", ""),
            // As kernels before 5.10 tell it, with nothing of writes.
            ("node/node0/access0/initiators/node0/x", ""),
            ("node/node0/access0/initiators/read_bandwidth", "9000"),
            ("node/node0/access0/initiators/read_latency", "80"),
            ("node/node0/access0/initiators/write_latency", "0"),
            // As firmware has it that says nothing.
            ("node/node1/access0/initiators/node1/x", ""),
            ("node/node1/access0/initiators/read_bandwidth", "0"),
            // A device is nearer than any CPU.
            ("node/node2/access0/initiators/node7/x", ""),
            ("node/node2/access0/initiators/read_latency", "1"),
            ("node/node2/access1/initiators/node0/x", ""),
            ("node/node2/access1/initiators/node1/x", ""),
            ("node/node2/access1/initiators/read_bandwidth", "3000"),
            ("node/node2/access1/initiators/write_bandwidth", "1000"),
            ("node/node2/access1/initiators/write_latency", "soon"),
        ])
        .topology();
        let access = |from, to| machine.memory_access(NodeId(from), NodeId(to));
        let told = |bandwidth_mib_s, latency_ns| {
            Some(MemoryAccess {
                bandwidth_mib_s,
                latency_ns,
            })
        };
        assert_eq!(access(0, 0), told(Some(9000), Some(80)));
        assert_eq!(access(0, 2), told(Some(2000), None));
        assert_eq!(access(1, 2), access(0, 2));
        assert_eq!(access(7, 2), None);
        assert_eq!(access(1, 1), None);
        assert_eq!(access(0, 1), None);
    }

    #[test]
    fn garbage_costs_only_what_it_would_have_said() {
        let machine = Described::new(&[
            ("cpu/online", "what"),
            ("cpu/cpu0/topology/core_cpus_list", "99999999999"),
            ("cpu/cpu0/cache/index0/level", "300"),
            ("cpu/cpu0/cache/index1/level", "2"),
            ("cpu/cpu0/cache/index1/type", "Unified"),
            ("cpu/cpu0/cache/index1/size", "99999999999999999999K"),
            ("cpu/cpu1/topology/physical_package_id", "-1"),
            ("cpu/cpuidle/driver", "none"),
            ("cpu/cpu99999999999/online", "1"),
            ("node/node0/cpulist", "0-"),
            ("node/node0/distance", "ten"),
            ("node/node0/meminfo", "MemTotal: lots"),
        ])
        .topology();
        assert_eq!(shape(&machine), [(0, "0-1".to_owned())]);
        assert_eq!(machine.caches().len(), 1);
        assert_eq!(machine.caches()[0].size_bytes, 0);
    }

    #[test]
    fn the_running_kernel_says_no_less_than_a_snapshot_of_it() {
        let kernel = Topology::detect().expect("this machine");
        let snapshot = Topology::from_sysfs("/").expect("this machine");
        if kernel.cpus().len() < snapshot.cpus().len() {
            eprintln!("skipped: this process may not use every CPU");
            return;
        }
        assert_eq!(kernel.cpus(), snapshot.cpus());
        assert_eq!(kernel.caches(), snapshot.caches());
        assert!(kernel.nodes().eq(snapshot.nodes()));
        for from in kernel.nodes() {
            // Not its memory: a virtual machine may be given some in between.
            let cpus = |machine: &Topology| machine.node(from).map(|node| node.cpus.clone());
            assert_eq!(cpus(&kernel), cpus(&snapshot));
            for to in kernel.nodes() {
                assert_eq!(kernel.distance(from, to), snapshot.distance(from, to));
            }
        }
    }

    #[test]
    fn a_file_is_read_to_its_end_however_long_and_however_it_ends() {
        let evens: Vec<String> = (0..4000).step_by(2).map(|cpu| cpu.to_string()).collect();
        let long = evens.join(",");
        assert!(long.len() > 2 * 4096);
        // A page that happens to end in a line is not the end.
        let page = format!("{:\n<4096}{long}\n", "");
        for (text, trimmed) in [
            (long.as_str(), long.as_str()),
            (&page, &long),
            ("0-1\n\0", "0-1"),
            ("7", "7"),
            ("", ""),
        ] {
            let file = tempfile::NamedTempFile::new().expect("a temporary file");
            fs::write(file.path(), text).expect("a file");
            assert_eq!(super::text(file.path()).as_deref(), Some(trimmed));
        }
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), [0xff, b'\n']).expect("a file");
        assert_eq!(super::text(file.path()), None);
    }

    #[test]
    fn an_empty_folder_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = Topology::from_sysfs(folder.path()).expect_err("no machine");
        assert!(
            error.to_string().contains("sys/devices/system/cpu"),
            "{error}"
        );
    }
}
