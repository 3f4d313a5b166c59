//! What a machine is made of: sockets, cores, nodes, and how far nodes lie from each other. Data alone;
//! a layout can be booted, or written down as the files of a machine that is only described.

use reiver_topology::{CpuId, CpuSet};

/// A machine. CPUs are numbered through: thread by thread, core by core, socket by socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// What tests call it.
    pub name: String,
    /// How many packages there are.
    pub sockets: u32,
    /// How many cores each of them has.
    pub cores: u32,
    /// How many hardware threads each core has.
    pub threads: u32,
    /// By number, from 0. None: a machine that says nothing of nodes.
    pub nodes: Vec<LayoutNode>,
    /// `distances[from][to]`, in the kernel's units.
    pub distances: Vec<Vec<u32>>,
}

/// A node of a [`Layout`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutNode {
    /// Its CPUs; a node may have none.
    pub cpus: CpuSet,
    /// Its memory; a node may have none.
    pub mib: Option<u32>,
}

impl Layout {
    /// All CPUs.
    pub fn cpus(&self) -> CpuSet {
        let count = self.sockets * self.cores * self.threads;
        (0..count).map(CpuId).collect()
    }

    /// The socket of a CPU, its core within that, and its thread within that.
    pub fn seat_of(&self, cpu: CpuId) -> (u32, u32, u32) {
        let core = cpu.0 / self.threads;
        (core / self.cores, core % self.cores, cpu.0 % self.threads)
    }

    /// A machine of one to four nodes that nobody thought of, small enough to be booted: CPUs and memory
    /// are shared out unevenly, some nodes have no memory and some no CPUs. The same for the same seed.
    pub fn drawn(seed: u64) -> Layout {
        let mut dice = Dice(seed);
        let sockets = dice.roll(1, 4);
        let cores = dice.roll(1, 3);
        let threads = if sockets * cores <= 6 {
            dice.roll(1, 2)
        } else {
            1
        };
        let mut nodes: Vec<LayoutNode> = (0..sockets)
            .map(|socket| {
                let first = socket * cores * threads;
                LayoutNode {
                    cpus: (first..first + cores * threads).map(CpuId).collect(),
                    mib: (socket == 0 || dice.roll(1, 4) > 1).then(|| 128 * dice.roll(2, 4)),
                }
            })
            .collect();
        if dice.roll(1, 3) == 1 {
            nodes.push(LayoutNode {
                cpus: CpuSet::new(),
                mib: Some(128 * dice.roll(1, 2)),
            });
        }
        // Ties are as likely as not; steps of 5 keep clear of what the kernel rounds.
        let far: Vec<Vec<u32>> = (1..nodes.len())
            .map(|from| {
                (from..nodes.len())
                    .map(|_| 10 + 5 * dice.roll(1, 5))
                    .collect()
            })
            .collect();
        Layout {
            name: format!("seed{seed}"),
            sockets,
            cores,
            threads,
            distances: distances(&far),
            nodes,
        }
    }
}

/// Distances from what is right of the diagonal, row by row.
pub fn distances(far: &[impl AsRef<[u32]>]) -> Vec<Vec<u32>> {
    let mut distances = vec![vec![10; far.len() + 1]; far.len() + 1];
    for (from, row) in far.iter().enumerate() {
        for (to, &distance) in (from + 1..).zip(row.as_ref()) {
            distances[from][to] = distance;
            distances[to][from] = distance;
        }
    }
    distances
}

/// Steele and others, "Fast splittable pseudorandom number generators" (2014): the splitmix64 step.
struct Dice(u64);

impl Dice {
    /// A number of `least..=most`.
    fn roll(&mut self, least: u32, most: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let sides = u64::from(most - least + 1);
        least + u32::try_from(mixed % sides).expect("less than the sides of the dice")
    }
}
