//! Layouts of machines: the facts that make one, for QEMU to build it and for readers to be told it.
//!
//! A layout is drawn from a seed, the same from the same seed. It can be written down as the kernel
//! shows it and as `lstopo` does, so that what a reader makes of either is held against it.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

/// A machine of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// What it is called where a test fails.
    pub name: String,
    /// How many there are.
    pub sockets: u32,
    /// Of each socket.
    pub cores: u32,
    /// Of each core; CPUs are numbered thread by thread, core by core, socket by socket.
    pub threads: u32,
    /// By their numbers.
    pub nodes: Vec<LayoutNode>,
    /// From each node to each, 10 to itself and more to others; in the order of `nodes`.
    pub distances: Vec<Vec<u8>>,
}

/// One node of a [`Layout`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayoutNode {
    /// Its CPUs, ascending.
    pub cpus: Vec<u32>,
    /// Its memory in MiB.
    pub mib: Option<u32>,
}

impl LayoutNode {
    /// True for a number that the kernel leaves out: a node with neither CPUs nor memory.
    pub fn is_hole(&self) -> bool {
        self.cpus.is_empty() && self.mib.is_none()
    }
}

/// No layout has more: one boots in seconds, and has every oddity that a larger one could have.
const MOST_CPUS: u32 = 16;
const MOST_NODES: usize = 8;

impl Layout {
    /// A machine that QEMU can build and Linux boots on, with up to 16 CPUs and 8 nodes.
    ///
    /// Node 0 has memory and CPU 0. Others may lack memory, or CPUs, or both, which leaves a hole.
    /// Nodes of memory alone have the highest numbers, as firmware numbers them: hwloc, which
    /// shows them with their neighbours' CPUs, could not be told from whose they are otherwise.
    pub fn random(seed: u64) -> Layout {
        let mut dice = Dice(seed);
        let threads = dice.one_of(&[1, 1, 2]);
        let sockets = dice.one_of(&[1, 2, 2, 3, 4]);
        let cores = dice.within(1, MOST_CPUS / (threads * sockets));
        let homes = homes(&mut dice, sockets, cores);
        let with_cpus = homes.iter().max().map_or(0, |&last| last + 1);
        let mut nodes = vec![LayoutNode::default(); with_cpus];
        for (core, &home) in (0..).zip(&homes) {
            nodes[home]
                .cpus
                .extend(core * threads..(core + 1) * threads);
        }
        for (index, node) in nodes.iter_mut().enumerate() {
            let has_memory = index == 0 || dice.chance(5, 6);
            node.mib = has_memory.then(|| dice.mib());
        }
        while nodes.len() < MOST_NODES && dice.chance(1, 4) {
            let cpus = Vec::new();
            let mib = Some(dice.mib());
            nodes.push(LayoutNode { cpus, mib });
        }
        while nodes.len() < MOST_NODES && dice.chance(1, 5) {
            let most = u32::try_from(nodes.len()).expect("a few");
            let at = dice.within(1, most) as usize;
            nodes.insert(at, LayoutNode::default());
        }
        let distances = distances(&mut dice, &nodes, cores * threads);
        Layout {
            name: format!("seed-{seed}"),
            sockets,
            cores,
            threads,
            nodes,
            distances,
        }
    }

    /// How many CPUs it has.
    pub fn cpu_count(&self) -> u32 {
        self.sockets * self.cores * self.threads
    }

    /// The core of a CPU, from 0 over the whole machine.
    pub fn core_of(&self, cpu: u32) -> u32 {
        cpu / self.threads
    }

    /// The socket of a CPU.
    pub fn socket_of(&self, cpu: u32) -> u32 {
        cpu / (self.cores * self.threads)
    }

    /// The socket of a CPU, its core within that, and its thread within that.
    pub fn seat_of(&self, cpu: u32) -> (u32, u32, u32) {
        let core = self.core_of(cpu) % self.cores;
        (self.socket_of(cpu), core, cpu % self.threads)
    }

    /// The nodes that the kernel shows, with their numbers.
    pub fn shown(&self) -> impl Iterator<Item = (u32, &LayoutNode)> {
        (0..).zip(&self.nodes).filter(|(_, node)| !node.is_hole())
    }

    /// How far a node is from another.
    pub fn distance(&self, from: u32, to: u32) -> u8 {
        self.distances[from as usize][to as usize]
    }

    /// Writes the files that the kernel would show, under a folder that stands for `/`.
    ///
    /// # Errors
    /// The system's.
    pub fn write_sysfs(&self, root: &Path) -> io::Result<()> {
        let system = root.join("sys/devices/system");
        let write = |path: String, text: String| {
            let path = system.join(path);
            fs::create_dir_all(path.parent().expect("it is below the root"))?;
            fs::write(path, text + "\n")
        };
        write("cpu/online".into(), list(0..self.cpu_count()))?;
        for cpu in 0..self.cpu_count() {
            let first = self.core_of(cpu) * self.threads;
            let topology = format!("cpu/cpu{cpu}/topology");
            let siblings = list(first..first + self.threads);
            write(format!("{topology}/core_cpus_list"), siblings)?;
            let socket = self.socket_of(cpu).to_string();
            write(format!("{topology}/physical_package_id"), socket)?;
        }
        let numbers = || self.shown().map(|(number, _)| number);
        write("node/online".into(), list(numbers()))?;
        for (number, node) in self.shown() {
            let folder = format!("node/node{number}");
            write(format!("{folder}/cpulist"), list(&node.cpus))?;
            let kib = node.mib.unwrap_or(0) * 1024;
            let meminfo = format!("Node {number} MemTotal: {kib} kB");
            write(format!("{folder}/meminfo"), meminfo)?;
            let row: Vec<String> = numbers()
                .map(|to| self.distance(number, to).to_string())
                .collect();
            write(format!("{folder}/distance"), row.join(" "))?;
        }
        Ok(())
    }

    /// What `lstopo` would write.
    pub fn to_xml(&self) -> String {
        let everything = mask(0..self.cpu_count());
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n<topology version=\"2.0\">\n\
             <object type=\"Machine\" os_index=\"0\" cpuset=\"{everything}\">\n"
        );
        let mut line = |line: String| writeln!(text, "{line}").expect("texts take any line");
        for (number, node) in self.shown() {
            let cpus = mask(self.near(number).iter().copied());
            let memory = node.mib.map_or(String::new(), |mib| {
                format!(" local_memory=\"{}\"", u64::from(mib) << 20)
            });
            line(format!(
                "<object type=\"NUMANode\" os_index=\"{number}\" cpuset=\"{cpus}\"{memory}/>"
            ));
        }
        let of_socket = self.cores * self.threads;
        for cpu in 0..self.cpu_count() {
            if cpu % of_socket == 0 {
                let socket = self.socket_of(cpu);
                line(format!("<object type=\"Package\" os_index=\"{socket}\">"));
            }
            if cpu % self.threads == 0 {
                line("<object type=\"Core\">".to_owned());
            }
            line(format!("<object type=\"PU\" os_index=\"{cpu}\"/>"));
            if (cpu + 1) % self.threads == 0 {
                line("</object>".to_owned());
            }
            if (cpu + 1) % of_socket == 0 {
                line("</object>".to_owned());
            }
        }
        line("</object>".to_owned());
        let numbers: Vec<u32> = self.shown().map(|(number, _)| number).collect();
        line("<distances2 type=\"NUMANode\" kind=\"5\" indexing=\"os\">".to_owned());
        line(format!("<indexes>{}</indexes>", spaced(&numbers)));
        for &from in &numbers {
            let row: Vec<u8> = numbers.iter().map(|&to| self.distance(from, to)).collect();
            line(format!("<u64values>{}</u64values>", spaced(&row)));
        }
        line("</distances2>\n</topology>".to_owned());
        text
    }

    /// The CPUs of a node, or those of the nearest that has some.
    fn near(&self, number: u32) -> &[u32] {
        let with_cpus = self.shown().filter(|(_, node)| !node.cpus.is_empty());
        let nearest = with_cpus.min_by_key(|&(other, _)| (self.distance(number, other), other));
        nearest.map_or(&[], |(_, node)| &node.cpus)
    }
}

/// The node of each core: one a socket, several a socket, or anyhow; ascending as they first appear.
fn homes(dice: &mut Dice, sockets: u32, cores: u32) -> Vec<usize> {
    let most = u32::try_from(MOST_NODES).expect("a few") / sockets;
    let each = match dice.within(0, 3) {
        0 | 1 => 1,
        _ => dice.within(1, cores.min(most)),
    };
    let in_order = (0..sockets)
        .flat_map(|socket| (0..cores).map(move |core| socket * each + core * each / cores));
    let mut homes: Vec<u32> = in_order.collect();
    if dice.chance(1, 5) {
        // A core may lie anywhere, but the first.
        for index in 1..homes.len() {
            let other = dice.within(1, u32::try_from(homes.len()).expect("a few") - 1);
            homes.swap(index, other as usize);
        }
    }
    homes.into_iter().map(|home| home as usize).collect()
}

/// Nodes of one socket are near to each other, nodes without CPUs are far from all.
fn distances(dice: &mut Dice, nodes: &[LayoutNode], cpus_of_socket: u32) -> Vec<Vec<u8>> {
    let socket = |node: &LayoutNode| Some(node.cpus.first()? / cpus_of_socket);
    let mut distances = vec![vec![10; nodes.len()]; nodes.len()];
    let is_uneven = dice.chance(1, 5);
    for from in 0..nodes.len() {
        for to in 0..from {
            let (least, most) = match (socket(&nodes[from]), socket(&nodes[to])) {
                (Some(a), Some(b)) if a == b => (11, 15),
                (Some(_), Some(_)) => (16, 40),
                _ => (20, 80),
            };
            let there = dice.within(least, most);
            let back = if is_uneven {
                dice.within(least, most)
            } else {
                there
            };
            let byte = |distance| u8::try_from(distance).expect("at most 80");
            distances[from][to] = byte(there);
            distances[to][from] = byte(back);
        }
    }
    distances
}

fn list<N: ToString>(numbers: impl IntoIterator<Item = N>) -> String {
    let numbers: Vec<String> = numbers
        .into_iter()
        .map(|number| number.to_string())
        .collect();
    numbers.join(",")
}

fn spaced<N: ToString>(numbers: &[N]) -> String {
    list(numbers.iter().map(ToString::to_string)).replace(',', " ")
}

/// As `lstopo` writes a set of up to 32 CPUs.
fn mask(cpus: impl Iterator<Item = u32>) -> String {
    format!("{:#010x}", cpus.fold(0u32, |mask, cpu| mask | 1 << cpu))
}

/// Random numbers from a seed: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
/// Generators, 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn within(&mut self, least: u32, most: u32) -> u32 {
        let range = u64::from(most - least) + 1;
        least + u32::try_from(self.next() % range).expect("within the range")
    }

    fn chance(&mut self, times: u32, of: u32) -> bool {
        self.within(1, of) <= times
    }

    fn one_of(&mut self, from: &[u32]) -> u32 {
        from[self.within(0, u32::try_from(from.len()).expect("a few") - 1) as usize]
    }

    /// As much as a kernel gets along with, and many nodes of it fit into memory.
    fn mib(&mut self) -> u32 {
        128 + 32 * self.within(0, 4)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_layout_is_one_that_qemu_builds() {
        for seed in 0..2000 {
            let layout = Layout::random(seed);
            let Layout {
                nodes, distances, ..
            } = &layout;
            assert_eq!(layout, Layout::random(seed));
            let cpus = nodes.iter().flat_map(|node| node.cpus.iter().copied());
            let cpus: Vec<u32> = cpus.collect();
            let distinct: BTreeSet<u32> = cpus.iter().copied().collect();
            assert!(
                distinct.iter().copied().eq(0..layout.cpu_count()),
                "{layout:?}"
            );
            assert_eq!(cpus.len(), distinct.len(), "{layout:?}");
            assert!(layout.cpu_count() <= MOST_CPUS && nodes.len() <= MOST_NODES);
            assert!(nodes[0].cpus.contains(&0) && nodes[0].mib.is_some());
            for (from, row) in distances.iter().enumerate() {
                assert_eq!(row.len(), nodes.len());
                for (to, &distance) in row.iter().enumerate() {
                    assert_eq!(distance == 10, from == to, "{layout:?}");
                    assert!(distance >= 10, "{layout:?}");
                }
            }
            for node in nodes {
                assert!(node.cpus.is_sorted());
                let cores = node.cpus.iter().map(|&cpu| layout.core_of(cpu));
                let cores: BTreeSet<u32> = cores.collect();
                assert_eq!(cores.len() * layout.threads as usize, node.cpus.len());
            }
        }
    }

    #[test]
    fn every_oddity_is_drawn_in_time() {
        let layouts: Vec<Layout> = (0..200).map(Layout::random).collect();
        let any = |odd: &dyn Fn(&Layout) -> bool| layouts.iter().any(odd);
        assert!(any(&|layout| layout.nodes.iter().any(LayoutNode::is_hole)));
        let is_memless = |node: &LayoutNode| node.mib.is_none() && !node.cpus.is_empty();
        assert!(any(&|layout| layout.nodes.iter().any(is_memless)));
        let is_memory = |node: &LayoutNode| node.mib.is_some() && node.cpus.is_empty();
        assert!(any(&|layout| layout.nodes.iter().any(is_memory)));
        assert!(any(&|layout| layout.threads == 2));
        assert!(any(&|layout| layout.nodes.len() == 1));
        assert!(any(&|layout| layout.nodes.len() == MOST_NODES));
        assert!(any(
            &|layout| layout.nodes.len() > layout.sockets as usize * 2
        ));
        let d = |layout: &Layout, a: usize, b: usize| layout.distances[a][b];
        assert!(any(
            &|layout| layout.nodes.len() > 1 && d(layout, 0, 1) != d(layout, 1, 0)
        ));
        let spans = |layout: &Layout| {
            let mut nodes = layout.nodes.iter();
            nodes.any(|node| {
                let sockets = node.cpus.iter().map(|&cpu| layout.socket_of(cpu));
                sockets.collect::<BTreeSet<_>>().len() > 1
            })
        };
        assert!(any(&spans));
    }
}
