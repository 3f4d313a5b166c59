//! Puts the current thread and its memory where they belong, and asks where memory lies.
//!
//! What the kernel refuses (in a container without `CAP_SYS_NICE`, outside a cpuset, on a kernel
//! without NUMA) is said once a process and done without: placement is speed, never correctness.
//! On a machine that is only described nothing is done.

use std::collections::BTreeMap;
use std::io;
use std::ptr::NonNull;
use std::sync::Once;

use crate::{CpuId, CpuSet, NodeId, Topology, sys};

/// Where a thread is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// On any usable CPU of a node; the kernel balances within it.
    Node(NodeId),
    /// On one CPU alone.
    Core(CpuId),
}

/// Confines the current thread to `target`. True if it is confined now; false on a machine that is
/// only described, for a node without usable CPUs, and where the kernel refuses, which is logged
/// once.
pub fn pin_thread_to(machine: &Topology, target: Target) -> bool {
    if !machine.is_this_machine() {
        return false;
    }
    let result = match target {
        Target::Node(id) => match machine.node(id) {
            Some(node) if !node.cpus.is_empty() => sys::set_affinity(&node.cpus),
            _ => return false,
        },
        Target::Core(cpu) => {
            let core = core_affinity::CoreId { id: cpu.0 as usize };
            if core_affinity::set_for_current(core) {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        }
    };
    if let Err(error) = &result {
        static REFUSED: Once = Once::new();
        REFUSED.call_once(|| {
            tracing::warn!(
                "the system refuses to pin a thread to its CPUs ({error}); threads run wherever the \
                 kernel puts them"
            );
        });
    }
    result.is_ok()
}

/// The CPUs that the current thread may run on: those of its mask that are online. Costs some 0.3 µs.
///
/// # Errors
/// The system's, where it refuses.
pub fn thread_affinity() -> io::Result<CpuSet> {
    sys::affinity()
}

/// Confines the current thread to `cpus`.
///
/// # Errors
/// The system's: `EINVAL` where none of them may be used.
pub fn set_thread_affinity(cpus: &CpuSet) -> io::Result<()> {
    sys::set_affinity(cpus)
}

/// The CPU that the current thread runs on just now. Costs some 10 ns.
pub fn current_cpu() -> Option<CpuId> {
    // SAFETY: sched_getcpu asks for a number and touches no memory of ours.
    let cpu = unsafe { libc::sched_getcpu() };
    u32::try_from(cpu).ok().map(CpuId)
}

/// Memory that the current thread touches first shall come from `node`, and from its neighbours
/// where it is full. `None` goes back to the system's default. True if so; false where the kernel
/// refuses, which is logged once.
pub fn prefer_memory_of(node: Option<NodeId>) -> bool {
    let result = sys::set_preferred_node(node);
    if let Err(error) = &result {
        note_refused("prefer a node's memory", error);
    }
    result.is_ok()
}

/// Where memory comes from that a thread touches first, and what it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryMode {
    /// From some nodes alone: where those are full the kernel ends processes.
    Bind,
    /// From some nodes while they have memory.
    Preferred,
    /// From some nodes in turns, page by page.
    Interleave,
    /// From the node of the CPU that touches it.
    Local,
}

/// Sets the memory policy of the current thread, which processes inherit that it starts. `nodes` is
/// empty for [`MemoryMode::Local`], and names at least one node for the others.
///
/// Kernels before 5.15 prefer one node only: there it is the first.
///
/// # Errors
/// The system's: `EPERM` or `ENOSYS` where policies may not be set, `EINVAL` where no node has memory
/// that this process may use.
pub fn set_thread_memory(mode: MemoryMode, nodes: &[NodeId]) -> io::Result<()> {
    sys::set_memory_policy(mode, nodes)
}

/// The memory policy of a thread, to go back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadMemory {
    policy: sys::MemoryPolicy,
}

impl ThreadMemory {
    /// That of the current thread.
    ///
    /// # Errors
    /// The system's, where it does not say.
    pub fn current() -> io::Result<ThreadMemory> {
        sys::memory_policy().map(|policy| ThreadMemory { policy })
    }

    /// Makes it that of the current thread.
    ///
    /// # Errors
    /// The system's, where it refuses.
    pub fn restore(&self) -> io::Result<()> {
        sys::restore_memory_policy(&self.policy)
    }
}

/// Says once that something about the place of memory is refused: what refuses one thing (a container,
/// say) refuses the others too.
fn note_refused(what: &str, error: &io::Error) {
    static REFUSED: Once = Once::new();
    REFUSED.call_once(|| {
        tracing::warn!(
            "the system refuses to {what} ({error}); where it does, memory comes from the node of the \
             CPU that touches it first and stays there, and data is taken to lie anywhere"
        );
    });
}

/// At most this many pages are asked about: enough to tell where most of them lie, at some 0.1 µs
/// a page.
const MOST_PAGES: usize = 1024;

/// On which nodes the pages of `data` lie, with how many on each. Of more than 1,024 pages, as many
/// are asked about, evenly spread. Pages that were never touched are on no node. Empty for an empty
/// slice, and where the kernel refuses, which is logged once.
pub fn nodes_of<T>(data: &[T]) -> BTreeMap<NodeId, usize> {
    let mut nodes = BTreeMap::new();
    let page = sys::page_bytes();
    let start = data.as_ptr().cast::<u8>();
    let bytes = size_of_val(data);
    if bytes == 0 {
        return nodes;
    }
    let into_page = start.addr() % page;
    let count = (into_page + bytes).div_ceil(page);
    let first = start.wrapping_sub(into_page);
    let asked = count.min(MOST_PAGES);
    let addresses: Vec<*const u8> = (0..asked)
        .map(|i| first.wrapping_add(i * count / asked * page))
        .collect();
    match sys::nodes_of_pages(&addresses) {
        Ok(status) => {
            for node in status
                .into_iter()
                .filter_map(|node| u32::try_from(node).ok())
            {
                *nodes.entry(NodeId(node)).or_insert(0) += 1;
            }
        }
        Err(error) => note_refused("say where pages lie", &error),
    }
    nodes
}

/// The node that holds most of the pages of `data`, at the cost of [`nodes_of`]; `None` where that
/// knows of none.
pub fn node_of<T>(data: &[T]) -> Option<NodeId> {
    let nodes = nodes_of(data);
    nodes
        .into_iter()
        .max_by_key(|&(id, pages)| (pages, std::cmp::Reverse(id)))
        .map(|(id, _)| id)
}

/// So many pages are asked about and moved in one call: their addresses fit into a cache.
const PAGES_AT_ONCE: usize = 4096;

/// What became of pages that were to move.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// So many were moved.
    pub pages: usize,
    /// At least so many were not, for the node is full, or somebody else was at them: that may be over soon.
    pub left: usize,
}

/// Moves the pages that lie wholly within `data`, and on another node, to `node`. Huge pages that reach
/// beyond `data` are split, so that what is around stays where it is. No memory policy is left behind.
/// What the kernel refuses stays where it is, which is logged once.
///
/// Costs some 0.1 µs a page, and 1 µs or more for each that is moved.
pub fn move_to_node<T>(data: &[T], node: NodeId) -> Moved {
    let page = sys::page_bytes();
    let start = data.as_ptr().cast::<u8>();
    let skipped = (page - start.addr() % page) % page;
    let pages = size_of_val(data).saturating_sub(skipped) / page;
    move_pages(start.wrapping_add(skipped), pages, node)
}

/// Moves what the current thread has of its stack to `node`: what whoever created it has touched of it,
/// and its own first steps before it was put in its place; thread-local variables lie there too.
pub fn move_stack_to_node(node: NodeId) -> Moved {
    let Ok(used) = sys::used_stack() else {
        return Moved::default();
    };
    let page = sys::page_bytes();
    let into_page = used.start.addr() % page;
    let bytes = into_page + (used.end.addr() - used.start.addr());
    move_pages(used.start.wrapping_sub(into_page), bytes / page, node)
}

/// Moves those of so many pages that lie on another node.
fn move_pages(first: *const u8, count: usize, node: NodeId) -> Moved {
    let page = sys::page_bytes();
    let mut moved = Moved::default();
    let mut is_full = false;
    for from in (0..count).step_by(PAGES_AT_ONCE) {
        let until = count.min(from + PAGES_AT_ONCE);
        let all = (from..until).map(|number| first.wrapping_add(number * page));
        let result = those_elsewhere(all.collect(), node).and_then(|pages| {
            if pages.is_empty() {
                return Ok(Moved::default());
            }
            if moved.pages == 0 {
                sys::split_huge_page_at(first);
                sys::split_huge_page_at(first.wrapping_add((count - 1) * page));
            }
            let many = pages.len();
            let left = match sys::move_pages(&pages, node) {
                Ok(0) => 0,
                Err(error) if error.raw_os_error() != Some(libc::ENOMEM) => return Err(error),
                result => {
                    is_full = result.is_err();
                    those_elsewhere(pages, node)?.len()
                }
            };
            let pages = many - left;
            Ok(Moved { pages, left })
        });
        match result {
            Ok(now) => {
                moved.pages += now.pages;
                moved.left += now.left;
                if is_full {
                    // What comes next would find no room either, and it costs much to be told so.
                    break;
                }
            }
            Err(error) => {
                note_refused("move pages to a node", &error);
                break;
            }
        }
    }
    moved
}

/// Those of the pages that were touched and lie on another node.
fn those_elsewhere(mut pages: Vec<*const u8>, node: NodeId) -> io::Result<Vec<*const u8>> {
    let wanted = i32::try_from(node.0).ok();
    let mut nodes = sys::nodes_of_pages(&pages)?.into_iter();
    pages.retain(|_| nodes.next().is_some_and(|on| on >= 0 && Some(on) != wanted));
    Ok(pages)
}

/// Memory of its own, fresh from the system: pages of zeros, which come from a node as they are first
/// touched, and from its neighbours where it is full. They go back when it is dropped.
///
/// Allocators hand memory from thread to thread and so from node to node; this stays where it is.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it owns its pages, which any thread may use and give back.
unsafe impl Send for Region {}
// SAFETY: a shared one gives nothing but its address and its size.
unsafe impl Sync for Region {}

impl Region {
    /// Maps at least so many bytes, at least a page, from an address that `align` divides. Costs some
    /// 7 µs with what it costs to give it back, and each page more when it is first touched.
    ///
    /// Where the kernel refuses to prefer `node`, or there is no such node, pages come from where they
    /// are first touched; that is logged once.
    ///
    /// # Errors
    /// The system's, where it has no such memory; `InvalidInput` if `align` is no power of two.
    pub fn map(bytes: usize, align: usize, node: Option<NodeId>) -> io::Result<Region> {
        let page = sys::page_bytes();
        let rounded = bytes.max(1).checked_next_multiple_of(page);
        let bytes = rounded.ok_or(io::ErrorKind::OutOfMemory)?;
        if !align.is_power_of_two() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let start = sys::map(bytes, align.max(page))?;
        let region = Region { start, bytes };
        if let Some(node) = node {
            // SAFETY: these are its own pages.
            let placed = unsafe { sys::prefer_for_pages(start.as_ptr(), bytes, node) };
            if let Err(error) = placed {
                note_refused("prefer a node's memory for pages", &error);
            }
        }
        Ok(region)
    }

    /// Where it begins. It is the owner's to say who reads and writes it.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// How long it is, a multiple of a page.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: they were mapped for it, and whoever used them is done.
        unsafe { sys::unmap(self.start.as_ptr(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_thread_runs_where_it_was_pinned() {
        let machine = Topology::detect().expect("this machine");
        for seat in machine.seats(machine.cpus().len()) {
            let machine = &machine;
            thread::scope(|scope| {
                scope.spawn(move || {
                    assert!(pin_thread_to(machine, Target::Core(seat.cpu)));
                    let only: CpuSet = [seat.cpu].into_iter().collect();
                    assert_eq!(thread_affinity().expect("a mask"), only);
                    assert!(pin_thread_to(machine, Target::Node(seat.node)));
                    let node = machine.node(seat.node).expect("a node");
                    assert_eq!(thread_affinity().expect("a mask"), node.cpus);
                });
            });
        }
    }

    #[test]
    fn a_described_machine_is_left_alone() {
        let machine = Topology::synthetic("NUMANode:2 PU:4").expect("a machine");
        let before = thread_affinity().expect("a mask");
        assert!(!pin_thread_to(&machine, Target::Node(NodeId(1))));
        assert_eq!(thread_affinity().expect("a mask"), before);
    }

    #[test]
    fn touched_memory_lies_on_a_node_of_the_machine() {
        let machine = Topology::detect().expect("this machine");
        let data = vec![1u8; 1 << 20];
        match node_of(&data) {
            Some(node) => assert!(machine.node(node).is_some()),
            None => eprintln!("skipped: the system does not say where pages lie"),
        }
        assert_eq!(node_of::<u8>(&[]), None);
        assert_eq!(node_of(&[(), ()]), None);
    }

    #[test]
    fn pages_are_moved_to_nodes_of_the_machine_alone() {
        let machine = Topology::detect().expect("this machine");
        let data: Vec<u64> = (0..1 << 18).collect();
        let none = Moved::default();
        for node in machine.nodes() {
            move_to_node(&data, node);
            if machine.node(node).is_some_and(|node| node.memory_bytes > 0) {
                assert_eq!(move_to_node(&data, node), none, "all are there already");
            }
        }
        assert_eq!(move_to_node(&data, NodeId(5000)), none);
        assert_eq!(move_to_node(&data, NodeId(u32::MAX)), none);
        assert_eq!(move_to_node::<u64>(&[], NodeId(0)), none);
        assert_eq!(move_to_node(&[(), ()], NodeId(0)), none);
        assert!(data.into_iter().eq(0..1 << 18));
    }

    #[test]
    fn a_stack_that_was_moved_is_there() {
        let moves = thread::spawn(|| {
            let machine = Topology::detect().expect("this machine");
            let node = machine.seats(1)[0].node;
            let has_memory = machine.node(node).is_some_and(|node| node.memory_bytes > 0);
            has_memory.then(|| (move_stack_to_node(node), move_stack_to_node(node)))
        });
        let moves = moves.join().expect("no panic");
        assert!(
            moves.is_none_or(|(_, again)| again == Moved::default()),
            "{moves:?}"
        );
    }

    #[test]
    fn regions_are_aligned_and_zero_and_lie_on_their_node() {
        let machine = Topology::detect().expect("this machine");
        for (bytes, align) in [(1, 1), (4096, 4096), (5000, 1 << 16), (3 << 20, 1 << 21)] {
            for node in machine.nodes() {
                let region = Region::map(bytes, align, Some(node)).expect("memory");
                assert_eq!(region.start().addr().get() % align, 0);
                assert!(region.bytes() >= bytes);
                // SAFETY: it is ours alone, and zeros.
                let bytes = unsafe {
                    std::slice::from_raw_parts_mut(region.start().as_ptr(), region.bytes())
                };
                assert!(bytes.iter().all(|&byte| byte == 0));
                bytes.fill(1);
                let has_memory = machine.node(node).is_some_and(|node| node.memory_bytes > 0);
                match node_of(bytes) {
                    Some(lies) if has_memory => assert_eq!(lies, node),
                    _ => eprintln!("skipped: the system does not say where pages lie"),
                }
            }
        }
    }

    #[test]
    fn regions_that_cannot_be_are_errors_and_unknown_nodes_are_not() {
        assert!(Region::map(usize::MAX, 1, None).is_err());
        assert!(Region::map(usize::MAX / 2, 1 << 21, None).is_err());
        assert!(Region::map(4096, 3, None).is_err());
        assert!(Region::map(4096, 0, None).is_err());
        for node in [5000, u32::MAX] {
            let region = Region::map(10, 1, Some(NodeId(node))).expect("memory");
            assert_eq!(region.bytes() % 4096, 0);
        }
    }

    #[test]
    fn memory_can_be_preferred_and_the_default_restored() {
        thread::spawn(|| {
            let machine = Topology::detect().expect("this machine");
            let node = machine.seats(1)[0].node;
            if prefer_memory_of(Some(node)) {
                assert!(prefer_memory_of(None));
            } else {
                eprintln!("skipped: the system refuses to prefer a node's memory");
            }
            assert!(!prefer_memory_of(Some(NodeId(5000))));
        })
        .join()
        .expect("no panic");
    }
}
