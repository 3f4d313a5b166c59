//! A large array whose parts lie on the nodes whose workers visit them, and loops over it.
//!
//!     cargo run --release -p reiver --example numa_array

use reiver::{Topology, TopologyError};

const LEN: usize = 1 << 22;

fn main() -> Result<(), TopologyError> {
    let nodes = Topology::detect()?.nodes().count();
    // Touched first by the workers to which the loops below give the same numbers.
    let xs = reiver::numa_vec(LEN, |i| (i % 7) as f64);
    let mut ys = reiver::numa_vec(LEN, |i| (i % 5) as f64);

    for _ in 0..3 {
        let len = 1 << 12;
        reiver::par_chunks_mut(&mut ys, len, |number, ys| {
            let xs = &xs[number * len..];
            ys.iter_mut().zip(xs).for_each(|(y, x)| *y += 2.0 * x);
        });
    }

    let sum = |xs: &[f64]| {
        let part = |range: std::ops::Range<usize>| xs[range].iter().sum::<f64>();
        reiver::par_map_reduce(0..xs.len(), 0, part, |left, right| left + right)
    };
    println!("{LEN} numbers on {nodes} node(s), their sum: {}", sum(&ys));
    // Small whole numbers: exact in whatever order they are added up.
    let expected: usize = (0..LEN).map(|i| i % 5 + 6 * (i % 7)).sum();
    assert_eq!(sum(&ys), expected as f64);
    Ok(())
}
