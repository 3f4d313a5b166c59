//! The suite `pools`: what an object costs that is taken, written to and given back.
//!
//! Contenders are pools and allocators (`peers.rs`, `heaps.rs`, ours in `ours.rs`), behind one trait
//! (`lender.rs`); the real `sync.Pool` is a program of its own (`go.rs`). Only like meets like: what lends
//! memory as it comes has other cases than what zeroes it. Floors are the same loops without any pool.

mod go;
mod handover;
mod heaps;
mod lender;
mod memory;
mod ours;
mod peers;
mod same_thread;
mod sync_pool;

use handover::{RingAlone, between_nodes, between_own_nodes, between_threads, between_workers};
use lender::{Plain, Zeroed};
use memory::{Boxed, Costly, Inline};
use same_thread::{
    ALL, LINE, NOTHING, PAGES, burst, burst_held, burst_on_workers, held, on_workers, same,
};

use crate::case::{Case, Contender, Outcome, Task, floor, ours, peer};
use crate::threads::{as_there_are_cpus, up_to_eight_or_more};

pub(crate) use lender::Lender;

/// For `counters`: the pool of [`depth_1`].
pub(crate) type SyncPoolStyle = peers::SyncPoolStyle<Plain<Inline<64>>>;

/// For `counters`: a stack under a lock.
pub(crate) type ObjectPool = peers::ObjectPool<Plain<Inline<64>>>;

/// For `counters`: our own.
pub(crate) type Reiver = ours::Reiver<Plain<Inline<64>>>;

/// For `counters`: the loop of the case of that name, on threads that no engine knows.
pub(crate) fn depth_1<L: Lender>(task: &Task) -> Outcome {
    same::<L, 1, LINE>(task)
}

/// What the imitation and the real one are called where they meet.
pub(crate) const IMITATION: &str = "sync.Pool style";
pub(crate) const IMITATED: &str = "go sync.Pool";

/// Every pool and allocator, for a function that is generic over [`lender::Lender`] and takes what is
/// named after the objects.
macro_rules! lenders {
    ($run:ident, $objects:ty $(, $more:expr)*) => {
        vec![
            peer(IMITATION, $run::<peers::SyncPoolStyle<$objects> $(, $more)*>),
            peer("crossbeam-queue ring", $run::<peers::Ring<$objects> $(, $more)*>),
            peer("object-pool", $run::<peers::ObjectPool<$objects> $(, $more)*>),
            peer("lockfree-object-pool", $run::<peers::LockFree<$objects> $(, $more)*>),
            peer("sharded-slab", $run::<peers::Slab<$objects> $(, $more)*>),
            peer("glibc box", $run::<heaps::Boxes<heaps::Glibc, $objects> $(, $more)*>),
            peer("mimalloc box", $run::<heaps::Boxes<heaps::Mimalloc, $objects> $(, $more)*>),
            #[cfg(feature = "snmalloc")]
            peer("snmalloc-rs box", $run::<heaps::Boxes<heaps::Snmalloc, $objects> $(, $more)*>),
            #[cfg(not(feature = "snmalloc"))]
            peer("snmalloc-rs box", heaps::no_snmalloc),
        ]
    };
}

const NO_POOL: &str = "no pool";

/// Everybody, at the loop of `same_thread.rs`.
macro_rules! same_thread {
    ($objects:ty, $depth:expr, $touch:expr) => {{
        let mut contenders = vec![
            ours("reiver", same::<ours::Reiver<$objects>, $depth, $touch>),
            ours(
                "reiver on workers",
                on_workers::<ours::Reiver<$objects>, $depth, $touch>,
            ),
        ];
        contenders.extend(lenders!(same, $objects, $depth, $touch));
        contenders.push(peer(IMITATED, go::same::<$objects, $depth, $touch>));
        contenders.push(floor(NO_POOL, held::<$objects, $depth, $touch>));
        contenders
    }};
}

/// As [`same_thread!`], with our buffers, and with what it costs to have each page mapped anew.
macro_rules! same_thread_large {
    ($objects:ty, $touch:expr) => {{
        let mut contenders = vec![
            ours(
                "reiver buffers",
                same::<ours::ReiverBuffers<$objects>, 1, $touch>,
            ),
            ours(
                "reiver buffers on workers",
                on_workers::<ours::ReiverBuffers<$objects>, 1, $touch>,
            ),
        ];
        contenders.extend(same_thread!($objects, 1, $touch));
        contenders.push(peer(
            "mmap and munmap",
            same::<heaps::Boxes<heaps::Mmap, $objects>, 1, $touch>,
        ));
        contenders
    }};
}

/// Objects in a burst that fits the cache of a thread: ten magazines of the smallest.
const BURST: usize = 640;
/// In one that does not, so that most of it goes through the depot: 64 magazines.
const FLOOD: usize = 4096;

/// Who takes so many small objects at once, and gives them back.
macro_rules! bursts {
    ($count:ident) => {{
        type Small = Plain<Inline<64>>;
        let mut contenders = vec![
            ours("reiver", burst::<ours::Reiver<Small>, $count, LINE>),
            ours(
                "reiver on workers",
                burst_on_workers::<ours::Reiver<Small>, $count, LINE>,
            ),
        ];
        contenders.extend(lenders!(burst, Small, $count, LINE));
        contenders.push(peer(IMITATED, go::burst::<Small, $count, LINE>));
        contenders.push(floor(NO_POOL, burst_held::<Small, $count, LINE>));
        contenders
    }};
}

/// All of them, in the order in which they are told.
pub(crate) fn cases() -> Vec<Case> {
    [depths(), sizes(), zeroed(), others()].concat()
}

fn depths() -> Vec<Case> {
    type Small = Plain<Inline<64>>;
    vec![
        same_case(
            "depth-1",
            "64 B taken, its first line written to, given back; one out at a time",
            same_thread!(Small, 1, LINE),
        )
        .usually_at(&up_to_eight_or_more()),
        same_case(
            "depth-8",
            "as depth-1, eight out at once",
            same_thread!(Small, 8, LINE),
        )
        .usually_at(&up_to_eight_or_more())
        .quickly_at(&[1]),
        same_case(
            "depth-64",
            "as depth-1, 64 out at once",
            same_thread!(Small, 64, LINE),
        )
        .usually_at(&up_to_eight_or_more())
        .quickly_at(&[1]),
    ]
}

/// Memory as it comes.
fn sizes() -> Vec<Case> {
    vec![
        same_case(
            "size-64-nothing",
            "64 B, nothing written",
            same_thread!(Plain<Inline<64>>, 1, NOTHING),
        )
        .slow(),
        same_case(
            "size-1k-nothing",
            "1 KiB, nothing written",
            same_thread!(Plain<Inline<1024>>, 1, NOTHING),
        )
        .slow(),
        same_case(
            "size-1k-line",
            "1 KiB, one line written to",
            same_thread!(Plain<Inline<1024>>, 1, LINE),
        ),
        same_case(
            "size-1k-all",
            "1 KiB, every line written to",
            same_thread!(Plain<Inline<1024>>, 1, ALL),
        )
        .slow(),
        same_case(
            "size-16k-nothing",
            "16 KiB, nothing written",
            same_thread_large!(Plain<Boxed<KIB_16>>, NOTHING),
        )
        .slow(),
        same_case(
            "size-16k-line",
            "16 KiB, one line written to",
            same_thread_large!(Plain<Boxed<KIB_16>>, LINE),
        )
        .slow(),
        same_case(
            "size-16k-all",
            "16 KiB, every line written to",
            same_thread_large!(Plain<Boxed<KIB_16>>, ALL),
        )
        .slow(),
        same_case(
            "size-1m-nothing",
            "1 MiB, nothing written",
            same_thread_large!(Plain<Boxed<MIB>>, NOTHING),
        )
        .slow(),
        same_case(
            "size-1m-line",
            "1 MiB, one line written to",
            same_thread_large!(Plain<Boxed<MIB>>, LINE),
        )
        .slow(),
        same_case(
            "size-1m-pages",
            "1 MiB, a byte of every page written; mmap and munmap is what it costs to fault them in anew",
            same_thread_large!(Plain<Boxed<MIB>>, PAGES),
        ),
        same_case(
            "size-1m-all",
            "1 MiB, every line written to",
            same_thread_large!(Plain<Boxed<MIB>>, ALL),
        )
        .slow(),
    ]
}

const KIB_16: usize = 16 << 10;
const MIB: usize = 1 << 20;

/// Memory that is all zeros when it is lent: pools zero what comes back, allocators what they give.
fn zeroed() -> Vec<Case> {
    vec![
        same_case(
            "zeroed-64-line",
            "64 B of zeros, one line written to",
            same_thread!(Zeroed<Inline<64>>, 1, LINE),
        ),
        same_case(
            "zeroed-1k-line",
            "1 KiB of zeros, one line written to",
            same_thread!(Zeroed<Inline<1024>>, 1, LINE),
        ),
        same_case(
            "zeroed-1k-all",
            "1 KiB of zeros, every line written to",
            same_thread!(Zeroed<Inline<1024>>, 1, ALL),
        )
        .slow(),
        same_case(
            "zeroed-16k-all",
            "16 KiB of zeros, every line written to",
            same_thread_large!(Zeroed<Boxed<KIB_16>>, ALL),
        )
        .slow(),
        same_case(
            "zeroed-1m-nothing",
            "1 MiB of zeros that nobody looks at: allocators map zeros that are never made",
            same_thread_large!(Zeroed<Boxed<MIB>>, NOTHING),
        )
        .slow(),
        same_case(
            "zeroed-1m-all",
            "1 MiB of zeros, every line written to",
            same_thread_large!(Zeroed<Boxed<MIB>>, ALL),
        ),
    ]
}

/// For `numa`: everybody who hands small objects from node to node.
pub(crate) fn between_nodes_of_this_machine<const FAR: bool>() -> Vec<Contender> {
    type Small = Plain<Inline<64>>;
    let mut contenders = vec![ours(
        "reiver",
        between_own_nodes::<ours::Reiver<Small>, FAR>,
    )];
    contenders.extend(lenders!(between_own_nodes, Small, FAR));
    contenders.push(floor("the ring alone", between_own_nodes::<RingAlone, FAR>));
    contenders
}

fn others() -> Vec<Case> {
    type Small = Plain<Inline<64>>;
    type Made = Plain<Costly>;
    let mut costly = vec![
        ours("reiver", same::<ours::Reiver<Made>, 1, LINE>),
        ours(
            "reiver on workers",
            on_workers::<ours::Reiver<Made>, 1, LINE>,
        ),
    ];
    costly.extend(lenders!(same, Made, 1, LINE));
    costly.push(peer(IMITATED, go::costly::<Made, 1, LINE>));
    costly.push(floor(NO_POOL, held::<Made, 1, LINE>));
    let mut handover = vec![
        ours("reiver", between_threads::<ours::Reiver<Small>>),
        ours("reiver on workers", between_workers::<ours::Reiver<Small>>),
    ];
    handover.extend(lenders!(between_threads, Small));
    handover.push(peer(IMITATED, go::handover::<Small>));
    handover.push(floor("the ring alone", between_threads::<RingAlone>));
    let mut remote = vec![ours("reiver", between_nodes::<ours::ReiverOnNodes<Small>>)];
    remote.extend(lenders!(between_nodes, Small));
    // It knows no nodes: the same to it.
    remote.push(peer(IMITATED, go::handover::<Small>));
    remote.push(floor("the ring alone", between_nodes::<RingAlone>));
    vec![
        same_case(
            "costly",
            "1 KiB that takes a microsecond to construct, one line written to",
            costly,
        ),
        same_case(
            "burst",
            "640 objects of 64 B taken at once (ten magazines), given back, then a millisecond idle",
            bursts!(BURST),
        )
        .usually_at(&up_to_eight_or_more())
        .quickly_at(&[1]),
        same_case(
            "flood",
            "as burst, with 4096 objects: more than a thread keeps, so that most go through the depot",
            bursts!(FLOOD),
        )
        .usually_at(&up_to_eight_or_more())
        .quickly_at(&[1]),
        case(
            "handover",
            "ns an object, by the wall",
            "64 B taken and written to by one thread, looked at and given back by another; a pair is two \
             threads",
            handover,
        )
        .at(&as_there_are_cpus()),
        case(
            "remote",
            "ns an object, by the wall",
            "as handover, between workers on nodes of their own that are only described: what it costs to send \
             home, not what memory far away costs",
            remote,
        )
        .at(&as_there_are_cpus()),
    ]
}

fn same_case(name: &'static str, what: &'static str, contenders: Vec<Contender>) -> Case {
    case(name, "ns an operation, of a thread's CPU", what, contenders).usually_at(&[1])
}

fn case(
    name: &'static str,
    unit: &'static str,
    what: &'static str,
    contenders: Vec<Contender>,
) -> Case {
    Case::new("pools", (name, unit), what, contenders)
}
