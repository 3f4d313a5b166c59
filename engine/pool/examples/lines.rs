//! Requests that each take a buffer and a parser from pools, on many threads, a part of them returned by
//! other threads than they were taken by.
//!
//!     cargo run --release -p reiver-pool --example lines
//!
//! It is also what `just leaks` runs under valgrind: pools end with objects in the caches of threads that
//! live and of threads that are gone, after panics, detached objects and trims.

use std::error::Error;
use std::sync::mpsc;
use std::thread;

use reiver_pool::counter::PaddedCounter;
use reiver_pool::{BufferPool, Pool, Pooled, PooledArc, Recycle};

/// What is expensive to make.
#[derive(Default)]
struct Parser {
    words: Vec<String>,
    lines: usize,
}

impl Parser {
    fn parse(&mut self, text: &[u8]) {
        self.lines += 1;
        let text = String::from_utf8_lossy(text);
        self.words
            .extend(text.split_whitespace().map(str::to_owned));
    }
}

const THREADS: usize = 4;
static WORDS: PaddedCounter = PaddedCounter::new();

fn main() -> Result<(), Box<dyn Error>> {
    let requests: usize = match std::env::args().nth(1) {
        None => 100_000,
        Some(count) => count.parse()?,
    };
    let buffers = BufferPool::new();
    let parsers = Pool::builder(Parser::default)
        // One that has grown too large is not kept.
        .recycle(|parser| match parser.words.capacity() {
            0..=64 => Recycle::Keep,
            _ => Recycle::Discard,
        })
        .reset(|parser| parser.words.clear())
        .capacity_per_node(2 * THREADS)
        .build();

    let (give, take) = mpsc::channel::<PooledArc<Parser>>();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (buffers, parsers, give) = (&buffers, &parsers, give.clone());
            scope.spawn(move || {
                for request in (number..requests).step_by(THREADS) {
                    let mut buffer = buffers.get(100 + request % 20_000);
                    let line = format!("request {request} of {requests}");
                    buffer[..line.len()].copy_from_slice(line.as_bytes());
                    if request % 10 == 0 {
                        let mut parser = parsers.get_owned();
                        parser.parse(&buffer[..line.len()]);
                        give.send(parser).expect("somebody counts");
                    } else {
                        let mut parser = parsers.get();
                        parser.parse(&buffer[..line.len()]);
                        WORDS.add(parser.words.len() as u64);
                    }
                }
            });
        }
        drop(give);
        scope.spawn(move || {
            for parser in take {
                WORDS.add(parser.words.len() as u64);
            }
        });
    });
    let (kept, idle) = (Pooled::detach(parsers.get()), parsers.stats().cached);
    let late = parsers.get_owned();
    parsers.trim();
    let stats = parsers.stats();
    println!("{} words in {requests} lines", WORDS.sum());
    println!(
        "{} parsers made, {idle} idle at the end, {} after a trim; {} buffers made",
        stats.created,
        stats.cached,
        buffers.stats().created,
    );
    drop(parsers);
    thread::spawn(move || drop(late))
        .join()
        .expect("it drops no more than an object, and the pool");
    assert_eq!(WORDS.sum(), 4 * requests as u64);
    assert!(kept.lines <= requests && stats.outstanding == 1);
    Ok(())
}
