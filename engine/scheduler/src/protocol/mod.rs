//! What threads say to each other without locks: each protocol is written down in its room, and goes
//! through every interleaving in the models of `tests/loom_*.rs`. What they are made of, `sync` and
//! `barrier`, is the pools' (`engine/pool/src/protocol`).

pub(crate) mod arena;
pub(crate) mod away;
pub(crate) mod count;
pub(crate) mod doze;
pub(crate) mod drain;
pub(crate) mod hand_over;
pub(crate) mod holding;
pub(crate) mod latch;
pub(crate) mod left;
pub(crate) mod muster;
pub(crate) mod notice;
pub(crate) mod permits;
pub(crate) mod private;
pub(crate) mod refs;
pub(crate) mod resting;
pub(crate) mod shown;
pub(crate) mod sleep;
pub(crate) mod state;
pub(crate) mod stop;

pub(crate) use reiver_pool::{barrier, sync};
