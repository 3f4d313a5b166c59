//! The pools of threads that block, and how others ask something of one.

use std::sync::Arc;

use super::Shared;
use crate::Class;
use crate::current::unstopped;
use crate::io::{Io, Pool};
use crate::machine::Machine;
use crate::metrics::HybridThreads;
use crate::schedule::is_stoppable;

impl Shared {
    /// The threads of a pool.
    pub(crate) fn pool(&self, pool: Pool) -> &Io {
        match pool {
            Pool::Io => &self.io,
            Pool::Hybrid => &self.hybrid[0],
            Pool::UrgentHybrid => &self.hybrid[1],
            Pool::BackgroundHybrid => &self.hybrid[2],
        }
    }

    /// What `what` makes of a pool and the machine. It may take the pool's lock: where this thread may be
    /// stopped, the spawner calls it in its place.
    pub(crate) fn with_pool<T: Send + Sync + 'static>(
        self: &Arc<Self>,
        pool: Pool,
        what: impl FnOnce(&Io, &Machine) -> T + Send + 'static,
    ) -> T {
        if !is_stoppable() {
            return what(self.pool(pool), &self.machine);
        }
        let engine = Arc::clone(self);
        unstopped(move || what(engine.pool(pool), &engine.machine))
    }

    /// All of them.
    pub(super) fn pools(&self) -> impl Iterator<Item = &Io> {
        std::iter::once(&self.io).chain(&self.hybrid)
    }

    /// Those whose threads run jobs of a class.
    pub(crate) fn pools_of(&self, class: Class) -> impl Iterator<Item = &Io> {
        let of_class = move |pool: &&Io| pool.is_of(class);
        self.pools().filter(of_class)
    }

    /// Threads of class Hybrid: how many there are, and how many are blocked in a job.
    pub(crate) fn hybrid_threads(&self) -> HybridThreads {
        let counts = self.hybrid.each_ref().map(Io::counts);
        HybridThreads {
            threads: counts.iter().map(|count| count[0]).sum(),
            blocked: counts.iter().map(|count| count[1]).sum(),
        }
    }
}
