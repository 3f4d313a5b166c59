//! What a promise stands on: the machine, what was told of it, and how to be on all of it at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier, Mutex, PoisonError};

use reiver::{Engine, JobHandle, NodeId, Topology};
use reiver_numa_tests::machines::{Machine, Stance, Told};
use reiver_topology::{CpuId, CpuSet, place};

/// What decides on which promises can be held.
#[derive(Debug)]
pub(crate) struct Site {
    pub(super) worker_nodes: usize,
    pub(super) memory_nodes: usize,
    pub(super) is_placing: bool,
    pub(super) is_root: bool,
    pub(super) is_own: bool,
}

impl Site {
    /// A machine that is not yet there.
    pub(crate) fn told(told: &Told, stance: &Stance) -> Site {
        let nodes = told.nodes.iter();
        let is_allowed = |id: u32| stance.memory.is_none_or(|only| only == id);
        Site {
            worker_nodes: nodes.clone().filter(|node| !node.cpus.is_empty()).count(),
            memory_nodes: nodes
                .filter(|node| node.mib > 0 && is_allowed(node.id))
                .count(),
            is_placing: !stance.no_placement,
            is_root: !stance.as_user,
            is_own: true,
        }
    }

    /// This machine, of which nobody told anything.
    fn found(topology: &Topology) -> Site {
        let has_cpus = |id: &NodeId| topology.node(*id).is_some_and(|node| !node.cpus.is_empty());
        let touched = [1_u8];
        Site {
            worker_nodes: topology.nodes().filter(has_cpus).count(),
            memory_nodes: memory_nodes(topology).len(),
            is_placing: place::node_of(&touched).is_some(),
            is_root: false,
            is_own: false,
        }
    }
}

/// The machine that a promise is held on.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) site: Site,
    /// Where somebody told something.
    pub(super) told: Option<(Machine, Told)>,
    pub(super) topology: Topology,
}

impl Ground {
    /// From here on warnings are kept.
    pub(crate) fn new(found: Option<(Machine, Stance)>) -> Ground {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_writer(|| Warnings)
            .without_time()
            .with_ansi(false)
            .init();
        let topology = Topology::detect().expect("this machine");
        let told = found.map(|(machine, stance)| {
            let told = machine.told(&stance);
            (Site::told(&told, &stance), (machine, told))
        });
        let (site, told) = match told {
            Some((site, told)) => (site, Some(told)),
            None => (Site::found(&topology), None),
        };
        Ground {
            site,
            told,
            topology,
        }
    }

    /// An engine as users get it.
    pub(super) fn engine(&self) -> Engine {
        Engine::builder().build().expect("an engine")
    }

    /// How many workers each node has in an engine with so many.
    pub(super) fn crew(&self, engine: &Engine) -> BTreeMap<NodeId, usize> {
        let mut crew = BTreeMap::new();
        for seat in self.topology.seats(engine.metrics().workers()) {
            *crew.entry(seat.node).or_insert(0) += 1;
        }
        crew
    }

    /// The CPUs of a node that may be used.
    pub(super) fn cpus_of(&self, node: NodeId) -> &CpuSet {
        &self.topology.node(node).expect("a node").cpus
    }

    /// Nodes with memory that may be used.
    pub(super) fn memory_nodes(&self) -> BTreeSet<NodeId> {
        memory_nodes(&self.topology)
    }

    /// True if no memory that may be used is nearer to CPUs of `node` than that of `page`.
    pub(super) fn is_home(&self, node: NodeId, page: NodeId) -> bool {
        self.is_nearest(node, page, self.memory_nodes())
    }

    /// True if `found` is one of `among`, and none of them is nearer to `from`.
    pub(super) fn is_nearest(
        &self,
        from: NodeId,
        found: NodeId,
        among: impl IntoIterator<Item = NodeId> + Clone,
    ) -> bool {
        let distance = |to| self.topology.distance(from, to);
        among.clone().into_iter().any(|node| node == found)
            && among.into_iter().map(distance).min() == Some(distance(found))
    }

    /// Runs `body` on every worker, on all at once, with the node that each is at.
    pub(super) fn on_each_worker<T: Send + 'static>(
        &self,
        engine: &Engine,
        body: impl Fn(NodeId) -> T + Send + Sync + 'static,
    ) -> Vec<(NodeId, T)> {
        let crew = self.crew(engine);
        let all = Arc::new((Barrier::new(crew.values().sum()), body));
        let places = crew.iter().flat_map(|(&node, &count)| vec![node; count]);
        let jobs: Vec<_> = places
            .map(|node| {
                let all = Arc::clone(&all);
                let job = engine.job().node(node).submit(move |_| {
                    let (all, body) = &*all;
                    all.wait();
                    let value = body(node);
                    // Nobody leaves and takes the job of another.
                    all.wait();
                    value
                });
                (node, job.expect("the node is known"))
            })
            .collect();
        jobs.into_iter()
            .map(|(node, job)| (node, job.join().expect("no panic")))
            .collect()
    }
}

fn memory_nodes(topology: &Topology) -> BTreeSet<NodeId> {
    let allowed: CpuSet = status("self", "Mems_allowed_list");
    let has_memory = |id: &NodeId| topology.node(*id).is_some_and(|node| node.memory_bytes > 0);
    topology
        .nodes()
        .filter(|id| has_memory(id) && allowed.contains(CpuId(id.0)))
        .collect()
}

/// A line of the status of a process or, as `self/task/1`, of a thread.
pub(super) fn status<T: FromStr>(who: &str, line: &str) -> T {
    let status = fs::read_to_string(format!("/proc/{who}/status")).expect("/proc");
    let value = status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let value = value.unwrap_or_else(|| panic!("{who} has no {line}"));
    let parsed = value.trim().parse();
    parsed.unwrap_or_else(|_| panic!("{line} is `{value}`"))
}

/// The threads of this process whose name begins so, with the CPUs that they may use.
pub(super) fn threads(name: &str) -> Vec<(String, CpuSet)> {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc").flatten();
    let named = tasks.filter_map(|task| {
        let number = task.file_name().into_string().ok()?;
        let own = fs::read_to_string(task.path().join("comm")).ok()?;
        let own = own.trim().to_owned();
        let who = format!("self/task/{number}");
        own.starts_with(name)
            .then(|| (own, status(&who, "Cpus_allowed_list")))
    });
    named.collect()
}

/// The CPU and the node that the current thread is on, in the kernel's words.
pub(super) fn whereabouts() -> (CpuId, NodeId) {
    let (mut cpu, mut node) = (0_u32, 0_u32);
    let nothing = std::ptr::null_mut::<u8>();
    // SAFETY: the kernel writes two numbers, for which there is room.
    let result = unsafe { libc::syscall(libc::SYS_getcpu, &raw mut cpu, &raw mut node, nothing) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    (CpuId(cpu), NodeId(node))
}

/// All workers of some nodes, busy until they are let go.
#[derive(Debug)]
pub(super) struct Held {
    workers: Vec<(Sender<()>, JobHandle<()>)>,
}

impl Held {
    /// Returns once they are all held.
    pub(super) fn new<'a>(
        engine: &Engine,
        crew: impl Iterator<Item = (&'a NodeId, &'a usize)>,
    ) -> Held {
        let (says, begun) = channel();
        let places = crew.flat_map(|(&node, &count)| vec![node; count]);
        let workers: Vec<_> = places
            .map(|node| {
                let (go, wait) = channel();
                let says = says.clone();
                let job = engine.job().node(node).submit(move |_| {
                    says.send(()).expect("it waits for all");
                    wait.recv().expect("it is let go");
                });
                (go, job.expect("the node is known"))
            })
            .collect();
        for _ in &workers {
            begun.recv().expect("every worker takes one");
        }
        Held { workers }
    }

    pub(super) fn let_go(self) {
        for (go, _) in &self.workers {
            go.send(()).expect("it waits for that");
        }
        for (_, job) in self.workers {
            job.join().expect("no panic");
        }
    }
}

static WARNED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What was warned of, as it would be shown.
pub(super) fn warnings() -> Vec<String> {
    WARNED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// Takes one warning a write, and shows it.
struct Warnings;

impl Write for Warnings {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let shown = String::from_utf8_lossy(text).trim().to_owned();
        println!("{shown}");
        let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
        warned.push(shown);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
