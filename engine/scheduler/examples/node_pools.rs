//! Rayon's own iterators, one plain pool for each node, each on its part of the data.
//!
//!     cargo run --release -p reiver --features rayon --example node_pools

use std::error::Error;
use std::thread;

use rayon::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let pools = reiver::rayon::node_pools()?;
    let data: Vec<u64> = (1..=1_000_000).collect();
    let threads: usize = pools
        .iter()
        .map(|(_, pool)| pool.current_num_threads())
        .sum();

    // To each node as much as it has threads; the last one takes what rounding leaves.
    let mut rest = &data[..];
    let last = pools.len() - 1;
    let parts = pools.iter().enumerate().map(|(number, (node, pool))| {
        let share = data.len() * pool.current_num_threads() / threads;
        let share = if number == last { rest.len() } else { share };
        let (part, others) = rest.split_at(share);
        rest = others;
        (node, pool, part)
    });
    let parts: Vec<_> = parts.collect();

    let sums = thread::scope(|scope| {
        let sum = |&(node, pool, part): &(_, &rayon::ThreadPool, &[u64])| {
            let sum = pool.install(|| part.par_iter().sum::<u64>());
            println!("node {node}: {} numbers, their sum is {sum}", part.len());
            sum
        };
        let running: Vec<_> = parts
            .iter()
            .map(|part| scope.spawn(move || sum(part)))
            .collect();
        let sums = running.into_iter().map(|sum| sum.join().expect("no panic"));
        sums.sum::<u64>()
    });
    assert_eq!(sums, 500_000_500_000);
    Ok(())
}
