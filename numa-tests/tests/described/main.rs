//! Machines that are only described: snapshots of real ones, and made-up ones.

mod steal_order;
mod topology;
