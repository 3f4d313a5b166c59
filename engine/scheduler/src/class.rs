//! What kind of work a job is, and how urgent.

/// What a job does with its thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Computes. Runs on the workers of a node, one a CPU.
    #[default]
    Cpu,
    /// Blocks: reads, writes, waits. Runs on elastic threads that never hold up computing ones.
    Io,
}

/// How urgent a job is; within a class a more urgent one is taken first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Urgent.
    P0,
    /// Ordinary.
    #[default]
    P1,
    /// Background.
    P2,
}
