//! What threads say to each other about objects. `README.md` here tells the whole of it; the models in
//! `tests/loom_*.rs` go through every interleaving.

pub(crate) mod arena;
pub mod barrier;
pub(crate) mod depot;
pub(crate) mod stack;
pub(crate) mod store;
pub mod sync;
