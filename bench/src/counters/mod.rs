//! The suite `counters`: what it costs that threads count at once, and what false sharing adds.
//!
//! `add` is one addition at growing numbers of threads; `together` shows the same as a ratio, and beside it
//! that of pools, whose own words must not share lines between threads either.

mod cells;
mod together;

use cells::{OneWord, Ours, Packed, Padded, adds, adds_on_workers};
use together::{pool_together, tally_together, tally_together_on_workers};

use crate::case::{Case, Contender, floor, ours, peer};
use crate::pools;
use crate::threads::{as_there_are_cpus, up_to_eight_or_more};

const RATIO: &str = "times what one thread alone pays";

/// All of them, in the order in which they are told.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        case(
            "add",
            "ns an addition, of a thread's CPU",
            "one is added to a counter that all threads share",
            vec![
                ours("reiver", adds::<Ours>),
                ours("reiver on workers", adds_on_workers::<Ours>),
                peer("one word", adds::<OneWord>),
                peer("packed cells", adds::<Packed>),
                floor("padded cells, known by number", adds::<Padded>),
            ],
            &up_to_eight_or_more(),
        ),
        case(
            "together",
            RATIO,
            "additions of several threads, in CPU time, against those of one alone; 1 is no sharing",
            vec![
                ours("reiver", tally_together::<Ours>),
                ours("reiver on workers", tally_together_on_workers::<Ours>),
                peer("one word", tally_together::<OneWord>),
                peer("packed cells", tally_together::<Packed>),
                floor("padded cells, known by number", tally_together::<Padded>),
            ],
            &as_there_are_cpus(),
        ),
        case(
            "together-pools",
            RATIO,
            "objects that several threads take and give back: what a pool's own words share",
            vec![
                ours("reiver", pool_together::<pools::Reiver>),
                peer("sync.Pool style", pool_together::<pools::SyncPoolStyle>),
                peer("object-pool", pool_together::<pools::ObjectPool>),
            ],
            &as_there_are_cpus(),
        ),
    ]
}

fn case(
    name: &'static str,
    unit: &'static str,
    what: &'static str,
    contenders: Vec<Contender>,
    threads: &[usize],
) -> Case {
    Case::new("counters", (name, unit), what, contenders).at(threads)
}
