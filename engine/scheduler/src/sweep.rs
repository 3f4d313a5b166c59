//! Jobs that have ended, or begun, and still lie in a queue: they are swept out when they are most of it.

use std::sync::Mutex;

use crate::Class;
use crate::io::Io;
use crate::protocol::sync::{AtomicUsize, Ordering};
use crate::queues::NodeQueues;
use crate::schedule::is_stoppable;
use crate::shared::Shared;

/// Fewer dead jobs are not worth a sweep.
pub(crate) const FEW_DEAD: usize = 4096;

/// Those of an engine.
#[derive(Debug, Default)]
pub(crate) struct Dead {
    /// By the class that they run as: jobs that have left their queue other than by its end, since it was last swept.
    counts: [AtomicUsize; 3],
    sweeping: Mutex<()>,
}

impl Shared {
    /// A job that runs as this class has ended, or begun, that still lies in a queue.
    pub(crate) fn note_dead(&self, class: Class) {
        // ORDERING: relaxed: a hint for when to look.
        let dead = self.dead.counts[class as usize].fetch_add(1, Ordering::Relaxed) + 1;
        if dead < FEW_DEAD {
            return;
        }
        if !is_stoppable() {
            return self.sweep_if_due(class);
        }
        // Whoever sweeps, or asks how many there are, holds what others wait for.
        if dead.is_multiple_of(FEW_DEAD)
            && let Some(shared) = self.weak().upgrade()
        {
            shared.bring(move |shared| shared.sweep_if_due(class));
        }
    }

    /// Takes what is dead out of the queues of a class, if it is most of what lies there.
    fn sweep_if_due(&self, class: Class) {
        let counter = &self.dead.counts[class as usize];
        // ORDERING: relaxed, as in `note_dead`.
        let dead = counter.load(Ordering::Relaxed);
        if dead < FEW_DEAD.max(self.queued(class) / 2) {
            return;
        }
        let Ok(_sweeping) = self.dead.sweeping.try_lock() else {
            return;
        };
        counter.store(0, Ordering::Relaxed);
        if class != Class::Cpu {
            return self.pools_of(class).for_each(Io::sweep);
        }
        for crew in self.crews() {
            for (node, queues) in crew.queues.iter().enumerate() {
                let left = queues.sweep(|job| job.is_queued());
                // A worker that looked meanwhile may have missed one.
                for _ in 0..left.min(crew.workers.len()) {
                    crew.pass_on(self, node);
                }
            }
            // Or may have left.
            crew.call_for_more(self);
        }
        self.end_queued_if_ending();
    }

    /// About how many jobs lie in the queues of a class, dead ones among them.
    fn queued(&self, class: Class) -> usize {
        match class {
            Class::Cpu => {
                let queues = self.crews().flat_map(|crew| &crew.queues);
                queues.map(NodeQueues::len).sum()
            }
            _ => self.pools_of(class).map(Io::len).sum(),
        }
    }
}
