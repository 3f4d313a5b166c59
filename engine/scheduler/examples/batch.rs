//! Many inputs, one closure: a bounded number in flight, results in order, as they come, or all or none.
//!
//!     cargo run --release -p reiver --example batch

use std::error::Error;
use std::path::PathBuf;

use reiver::{BatchError, Class, Engine};

fn main() -> Result<(), Box<dyn Error>> {
    let engine = Engine::builder().build()?;

    // Reading blocks: class Io, at most 32 files at once. Some come and go, so each may fail by itself.
    let files: Vec<PathBuf> = std::fs::read_dir("/proc/self")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    let asked = files.len();
    let read = engine.batch(files).class(Class::Io).max_in_flight(32);
    let kinds = read.map(|_, file| std::fs::symlink_metadata(file).map(|data| data.is_dir()));
    let (mut folders, mut others) = (0, 0);
    for kind in kinds.unordered() {
        match kind? {
            Ok(true) => folders += 1,
            Ok(false) | Err(_) => others += 1,
        }
    }
    println!("{asked} entries, {folders} of them folders");
    assert_eq!(folders + others, asked);

    // Computing: results in the order of the inputs.
    let lengths = engine.batch(1..=30_u64).map(|_, start| collatz(start));
    let lengths: Vec<u32> = lengths.collect().into_iter().collect::<Result<_, _>>()?;
    println!("from 27 it takes {} steps to 1", lengths[26]);
    assert_eq!(lengths[26], 111);

    // All or none: the rest is cancelled.
    let words = ["12", "7", "many", "3"];
    let numbers = engine.batch(words).try_map(|_, word| word.parse::<u32>());
    match numbers.fail_fast() {
        Err(BatchError::Failed { index, error }) => println!("word {index} is no number: {error}"),
        other => panic!("a word is no number: {other:?}"),
    }
    Ok(())
}

/// How many steps it takes to 1.
fn collatz(mut n: u64) -> u32 {
    let mut steps = 0;
    while n != 1 {
        n = if n.is_multiple_of(2) {
            n / 2
        } else {
            3 * n + 1
        };
        steps += 1;
    }
    steps
}
