//! Object pools that stay on their NUMA node, and padded counters.
//!
//! This room is empty so far: it stands where the scheduler will find it, between the topology and
//! the workers. Nothing here is to be used yet.
