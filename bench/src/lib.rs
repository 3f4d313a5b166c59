//! Measured comparisons of reiver with its peers: `just bench`.
//!
//! A comparison runs contender and peer in one process, in one run, and prints both; it never
//! judges. `benches/fork_join.rs` is the first one. The benches are built on their own, so that
//! nobody who uses reiver builds its peers.
