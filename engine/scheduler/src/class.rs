//! What kind of work a job is, and how urgent.

/// What a job does with its thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Computes. Runs on the workers of a node, one a CPU.
    #[default]
    Cpu,
    /// Blocks: reads, writes, waits. Runs on elastic threads that never hold up computing ones.
    Io,
    /// Computes and blocks by turns. Runs on elastic threads of its own, of each priority others: as many of
    /// these at once as there are CPU workers, and one more for each that blocks just now, up to as many as
    /// [`io_workers`](crate::EngineBuilder::io_workers) allows. Who blocks is seen within a millisecond or
    /// some, and shown by [`Metrics::hybrid_threads`](crate::Metrics::hybrid_threads).
    ///
    /// Those of P2 are threads of the background, as in class Cpu, but are not paced inside a CPU quota. Where
    /// none of their jobs was taken for [`background_patience`](crate::EngineBuilder::background_patience), one
    /// that waits is done by a thread of P1, and so is one that such a thread waits for. What a job of this
    /// class forks runs on the workers of its priority.
    Hybrid,
    /// Unknown: the engine finds out. Jobs of a [`name`](crate::JobBuilder::name), or where they have none those
    /// of a type of closure, begin as Hybrid. The engine measures what share of the time that a CPU was
    /// there for them they did not compute. Above 0.6 those that come from then on run as Io, under 0.1 as
    /// Cpu; they change back at 0.5 and 0.2. It goes by time, so that one long wait counts more than many
    /// short jobs.
    ///
    /// A job counts in the metrics, has its queue capacity, limits and policy as one of class Auto, wherever
    /// it runs; [`Engine::auto_class`](crate::Engine::auto_class) and [`Metrics::placed`](crate::Metrics::placed)
    /// say where that is. Costs 20 ns more than a name at submission, and 10 µs when it runs for those
    /// that are measured: each of the first 32 of a name, then one in eight. About a thousand names are known at once; those that come
    /// least are forgotten, and begin as Hybrid again.
    ///
    /// Waiting for other jobs is waiting too, and so is the time for which the kernel stops all threads because a
    /// CPU quota is used up: nobody counts that as wanting a CPU. Where the kernel does not say how long threads
    /// wait for a CPU (`/proc/thread-self/schedstat` is missing, or says zeros), jobs are judged by how often
    /// they give up theirs, which is less exact.
    Auto,
}

/// How urgent a job is. Jobs of class [`Io`](Class::Io) are taken in this order, with P2 once
/// in a while before the others; those of class [`Cpu`](Class::Cpu), one a CPU, and of class
/// [`Hybrid`](Class::Hybrid) have threads of their own for each priority, so that the kernel lets
/// urgent work in where less urgent work runs, in the middle of it. Those of P0 and P2 start with the
/// first job of theirs.
///
/// A job's forks have its priority; jobs that it submits have it only if they are given it. Threads and
/// processes that a job starts itself inherit how the kernel schedules its thread, for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Urgent. From the first of these on that is not of class Io, the workers of ordinary jobs leave their CPUs to
    /// urgent threads, see [`yield_to_urgent`](crate::EngineBuilder::yield_to_urgent).
    P0,
    /// Ordinary.
    #[default]
    P1,
    /// Background: gets what others leave, on threads at `SCHED_IDLE` (`sched(7)`; nice 19 where that is
    /// refused). It moves beside any other work, if slowly, see
    /// [`background_patience`](crate::EngineBuilder::background_patience). Inside a CPU quota that grants fewer
    /// CPUs than may be used it waits from the first P0 job on, between two jobs, at pieces of loops and at
    /// [`checkpoint`](crate::JobContext::checkpoint)s, so that the process uses nine tenths of the quota: once
    /// it is used up the kernel stops all threads for the rest of a period.
    ///
    /// The kernel may stop such a job at any step, for as long as there is anything else to do, and
    /// with it whatever it holds; it may hold it through a wait for the quota, too. A lock that more urgent work
    /// waits for, and an allocator is such a lock where it shares one between threads, makes that work wait for
    /// the background job (`just bench mixed/locks`): on two
    /// CPUs that urgent jobs of 200 µs leave half free, a lock that both hold for 50 µs moves nothing that
    /// noise does not (a p99 of 0.4 ms, 0.3 to 0.9 without), and an allocator brings it to 0.5 (glibc) to 2.9 ms
    /// (mimalloc); with less to spare it is worse, without bound.
    /// [`Engine::install_at`](crate::Engine::install_at) is the way out: what holds the lock runs on an
    /// urgent worker.
    P2,
}
