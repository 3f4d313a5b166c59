//! The machines that are booted, and in which stances the promises are held on each. Data alone: to add
//! a machine, add it to [`machines`].

use reiver_topology::{CpuId, CpuSet};

use crate::layout::{Layout, LayoutNode};

/// A machine to boot.
#[derive(Debug, Clone)]
pub struct Machine {
    /// What QEMU is told.
    pub layout: Layout,
    /// CPUs that it has room for and has not, as the layout numbers them.
    pub absent: CpuSet,
    /// CPUs that are taken offline once it is up, by the kernel's numbers.
    pub offline: CpuSet,
    /// What tests are confined to, one way after the other.
    pub stances: Vec<Stance>,
}

/// What a test is confined to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stance {
    /// What tests call it; may be empty.
    pub name: &'static str,
    /// Not root: an ordinary user in a part of the cgroups that is theirs.
    pub as_user: bool,
    /// A cpuset.
    pub cpus: Option<CpuSet>,
    /// The nodes whose memory that cpuset allows.
    pub memory: Option<u32>,
    /// A quota, in hundredths of a CPU.
    pub quota_percent: Option<u32>,
    /// System calls about memory's place are refused, as in a container.
    pub no_placement: bool,
}

/// What can be known of a machine before it is booted.
#[derive(Debug, Clone)]
pub struct Told {
    /// The nodes that are online, ascending.
    pub nodes: Vec<ToldNode>,
    /// `distances[from][to]`, in the order of `nodes`.
    pub distances: Vec<Vec<u32>>,
    /// How many workers an engine has.
    pub workers: usize,
}

/// What is known of a node.
#[derive(Debug, Clone)]
pub struct ToldNode {
    /// Its number.
    pub id: u32,
    /// Its CPUs that may be used.
    pub cpus: CpuSet,
    /// Its memory, 0 for none.
    pub mib: u32,
}

/// All machines, in the order in which they are booted.
pub fn machines() -> Vec<Machine> {
    let cpus = |list: &str| -> CpuSet { list.parse().expect("a list of CPUs") };
    let confined = |name: &str, stances: Vec<Stance>| Machine {
        stances,
        ..Machine::plain(two(name))
    };
    let user = Stance {
        as_user: true,
        ..Stance::default()
    };
    let mut machines = vec![
        Machine::plain(layout("flat", [1, 2, 1], &[], &[])),
        Machine::plain(two("two")),
        Machine::plain(layout(
            "ring4",
            [4, 2, 1],
            &[("0-1", 256), ("2-3", 256), ("4-5", 256), ("6-7", 256)],
            &[&[16, 22, 16], &[16, 22], &[16]],
        )),
        Machine::plain(eight()),
        Machine::plain(layout(
            "memless",
            [4, 2, 1],
            &[("0-3", 640), ("4-5", 256), ("6-7", 0)],
            &[&[16, 18], &[12]],
        )),
        Machine::plain(layout(
            "cxl",
            [2, 2, 1],
            &[("0-1", 384), ("2-3", 384), ("", 256)],
            &[&[21, 24], &[34]],
        )),
        Machine {
            absent: cpus("2-3"),
            ..Machine::plain(layout(
                "sparse",
                [3, 2, 1],
                &[("0-1", 512), ("2-3", 0), ("4-5", 512)],
                &[&[16, 22], &[16]],
            ))
        },
        Machine::plain(layout(
            "smt",
            [2, 2, 2],
            &[("0-3", 512), ("4-7", 512)],
            &[&[21]],
        )),
        Machine {
            offline: cpus("1-2,6"),
            ..Machine::plain(two("offline"))
        },
        confined(
            "cpuset",
            vec![
                Stance {
                    name: "one_node",
                    cpus: Some(cpus("4-7")),
                    memory: Some(1),
                    ..user.clone()
                },
                Stance {
                    name: "half_of_each",
                    cpus: Some(cpus("2-5")),
                    ..user.clone()
                },
            ],
        ),
        confined(
            "quota",
            vec![Stance {
                quota_percent: Some(250),
                ..user.clone()
            }],
        ),
        confined(
            "nombind",
            vec![Stance {
                no_placement: true,
                ..user.clone()
            }],
        ),
    ];
    machines.extend(SEEDS.map(|seed| Machine {
        stances: vec![user.clone()],
        ..Machine::plain(Layout::random(seed))
    }));
    machines
}

/// Machines that were drawn: nodes of memory alone, SMT and no memory, holes, and parts of sockets.
const SEEDS: [u64; 4] = [3, 30, 43, 44];

/// Two nodes of four CPUs each.
fn two(name: &str) -> Layout {
    layout(name, [2, 4, 1], &[("0-3", 512), ("4-7", 512)], &[&[21]])
}

/// Two hives of four nodes.
fn eight() -> Layout {
    let far = |from: usize, to: usize| if from / 4 == to / 4 { 16 } else { 32 };
    let rows: Vec<Vec<u8>> = (0..7)
        .map(|from| (from + 1..8).map(|to| far(from, to)).collect())
        .collect();
    let nodes: Vec<String> = (0..8).map(|n| format!("{}-{}", 2 * n, 2 * n + 1)).collect();
    // The kernel lies on the first, with all that this program is packed with.
    let memory = |node| if node == 0 { 320 } else { 160 };
    let nodes = (0..).zip(&nodes);
    let nodes: Vec<(&str, u32)> = nodes.map(|(n, cpus)| (cpus.as_str(), memory(n))).collect();
    let rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
    layout("eight", [8, 2, 1], &nodes, &rows)
}

/// `nodes` are CPUs and MiB; `far` what is right of the diagonal.
fn layout(
    name: &str,
    [sockets, cores, threads]: [u32; 3],
    nodes: &[(&str, u32)],
    far: &[&[u8]],
) -> Layout {
    let node = |&(cpus, mib): &(&str, u32)| {
        let cpus: CpuSet = cpus.parse().expect("a list of CPUs");
        LayoutNode {
            cpus: cpus.iter().map(|cpu| cpu.0).collect(),
            mib: (mib > 0).then_some(mib),
        }
    };
    Layout {
        name: name.to_owned(),
        sockets,
        cores,
        threads,
        nodes: nodes.iter().map(node).collect(),
        distances: distances(far),
    }
}

/// Distances from what is right of the diagonal, row by row.
fn distances(far: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut distances = vec![vec![10; far.len() + 1]; far.len() + 1];
    for (from, row) in far.iter().enumerate() {
        for (to, &distance) in (from + 1..).zip(*row) {
            distances[from][to] = distance;
            distances[to][from] = distance;
        }
    }
    distances
}

fn set(cpus: &[u32]) -> CpuSet {
    cpus.iter().copied().map(CpuId).collect()
}

impl Machine {
    /// All of it there, and held by root and by an ordinary user.
    fn plain(layout: Layout) -> Machine {
        let as_user = Stance {
            name: "as_user",
            as_user: true,
            ..Stance::default()
        };
        Machine {
            layout,
            absent: CpuSet::new(),
            offline: CpuSet::new(),
            stances: vec![Stance::default(), as_user],
        }
    }

    /// CPUs that it has, as the layout numbers them.
    pub fn present(&self) -> CpuSet {
        let all: CpuSet = (0..self.layout.cpu_count()).map(CpuId).collect();
        all.difference(&self.absent)
    }

    /// The kernel numbers those that are there, without gaps.
    fn numbered(&self) -> impl Iterator<Item = (CpuId, CpuId)> {
        let present: Vec<CpuId> = self.present().iter().collect();
        (0..).map(CpuId).zip(present)
    }

    /// The socket of a CPU by the kernel's number, its core within that, and its thread within that.
    pub fn seat_of(&self, cpu: CpuId) -> (u32, u32, u32) {
        let found = self.numbered().find(|(number, _)| *number == cpu);
        self.layout.seat_of(found.expect("a CPU that it has").1.0)
    }

    /// What is known of it, for who is confined so.
    pub fn told(&self, stance: &Stance) -> Told {
        let all: CpuSet = self.numbered().map(|(number, _)| number).collect();
        let mut usable = all.difference(&self.offline);
        if let Some(cpus) = &stance.cpus {
            usable = usable.intersection(cpus);
        }
        let mut nodes: Vec<ToldNode> = Vec::new();
        // What says nothing at all of itself has no number.
        let (known, all): (Vec<usize>, Vec<&LayoutNode>) = self
            .layout
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| !node.is_hole())
            .unzip();
        for (id, node) in (0..).zip(all) {
            let cpus = set(&node.cpus);
            let is_online = node.mib.is_some() || !cpus.is_subset(&self.absent);
            if is_online {
                let own = self.numbered().filter(|(_, cpu)| cpus.contains(*cpu));
                let own: CpuSet = own.map(|(number, _)| number).collect();
                nodes.push(ToldNode {
                    id,
                    cpus: own.intersection(&usable),
                    mib: node.mib.unwrap_or(0),
                });
            }
        }
        let index = |node: &ToldNode| known[node.id as usize];
        let mut distances: Vec<Vec<u32>> = nodes
            .iter()
            .map(|from| {
                let row = &self.layout.distances[index(from)];
                nodes.iter().map(|to| u32::from(row[index(to)])).collect()
            })
            .collect();
        if nodes.is_empty() {
            nodes.push(ToldNode {
                id: 0,
                cpus: usable.clone(),
                mib: self.memory_mib(),
            });
            distances.push(vec![10]);
        }
        let granted = stance
            .quota_percent
            .map_or(u32::MAX, |percent| percent / 100);
        let granted = usize::try_from(granted.max(1)).unwrap_or(usize::MAX);
        Told {
            nodes,
            distances,
            workers: usable.len().min(granted),
        }
    }

    /// All its memory.
    pub fn memory_mib(&self) -> u32 {
        match self.layout.nodes.as_slice() {
            [] => 1024,
            nodes => nodes.iter().filter_map(|node| node.mib).sum(),
        }
    }

    /// The stance of this name.
    pub fn stance(&self, name: &str) -> Option<&Stance> {
        self.stances.iter().find(|stance| stance.name == name)
    }
}

/// The first CPUs of a set without gaps: those that a machine starts with.
pub fn leading(cpus: &CpuSet) -> CpuSet {
    let numbered = (0..).map(CpuId).zip(cpus.iter());
    numbered
        .take_while(|(expected, cpu)| expected == cpu)
        .map(|(_, cpu)| cpu)
        .collect()
}
