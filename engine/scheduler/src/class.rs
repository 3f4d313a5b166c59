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

/// How urgent a job is. Jobs of class [`Io`](Class::Io) are taken in this order; those of class
/// [`Cpu`](Class::Cpu) have threads of their own for each priority, one a CPU, so that the kernel lets
/// urgent work in where less urgent work runs, in the middle of it. Those of P0 and P2 start with the
/// first job of theirs.
///
/// A job's forks have its priority; jobs that it submits have it only if they are given it. Threads and
/// processes that a job starts itself inherit how the kernel schedules its thread, for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Urgent. From the first of these on, the workers of ordinary jobs leave their CPUs to it, see
    /// [`yield_to_urgent`](crate::EngineBuilder::yield_to_urgent).
    P0,
    /// Ordinary.
    #[default]
    P1,
    /// Background: gets what others leave, on threads at `SCHED_IDLE` (`sched(7)`; nice 19 where that is
    /// refused). It moves beside any other work, if slowly, see
    /// [`background_patience`](crate::EngineBuilder::background_patience).
    ///
    /// The kernel may stop such a job at any step, for as long as there is anything else to do, and
    /// with it whatever it holds. A lock that more urgent work waits for, and an allocator is such a
    /// lock where it shares one between threads, makes that work wait for the background job: on two
    /// CPUs that urgent jobs of 200 µs leave half free, a lock that both hold for 50 µs moves nothing that
    /// noise does not (a p99 of 0.4 ms, 0.3 to 0.9 without), and an allocator brings it to 0.5 (glibc) to 2.9 ms
    /// (mimalloc); with less to spare it is worse, without bound.
    /// [`Engine::install_at`](crate::Engine::install_at) is the way out: what holds the lock runs on an
    /// urgent worker.
    P2,
}
