//! Machines that are only described: snapshots of real ones, and made-up ones.

mod drawing;
mod hwloc;
mod layouts;
mod machines;
mod steal_order;
mod topology;
