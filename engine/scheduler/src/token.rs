//! Cancelling jobs from outside, singly or as a tree.

use std::sync::{Arc, Weak};

use crate::cell::AnyJob;
use crate::current::unstopped;
use crate::panics::contain;
use crate::protocol::notice::Notice;
use crate::protocol::refs::{Ref, Watch};

/// Cancels the jobs that were given it, and those of its children. Clones are the same token.
///
/// A queued job ends at once as [`JobError::Cancelled`](crate::JobError::Cancelled), a running one
/// learns of it at its next [`checkpoint`](crate::JobContext::checkpoint).
///
/// ```
/// use reiver::{CancellationToken, Engine, JobError};
///
/// let engine = Engine::builder().cpu_workers(1).build()?;
/// let token = CancellationToken::new();
/// token.cancel();
/// let job = engine.job().cancel_with(&token).submit(|_| 1)?;
/// assert!(matches!(job.join(), Err(JobError::Cancelled)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct CancellationToken {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Kept, so that a token reaches those below a token that nobody holds any more.
    parent: Option<Arc<Inner>>,
    cancelled: Notice<Dependents>,
}

#[derive(Debug, Default)]
struct Dependents {
    children: Vec<Weak<Inner>>,
    jobs: Vec<Watch<dyn AnyJob>>,
}

impl CancellationToken {
    /// A token of its own.
    pub fn new() -> CancellationToken {
        CancellationToken::default()
    }

    /// A token that is cancelled with this one, or alone.
    pub fn child(&self) -> CancellationToken {
        let mut inner = Inner::default();
        inner.parent = Some(Arc::clone(&self.inner));
        let child = CancellationToken {
            inner: Arc::new(inner),
        };
        let (own, added) = (Arc::clone(&self.inner), Arc::downgrade(&child.inner));
        let is_added = unstopped(move || {
            own.cancelled.listen(|dependents| {
                retain_amortised(&mut dependents.children, |child| child.strong_count() > 0);
                dependents.children.push(added);
            })
        });
        if !is_added {
            child.cancel();
        }
        child
    }

    /// Cancels, once and for all.
    pub fn cancel(&self) {
        self.inner.cancel();
    }

    /// True once it is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancelled.is_said()
    }

    /// Sees to it that `job` is told. One that is queued ends here if the token is cancelled: true.
    pub(crate) fn register(&self, job: &Ref<dyn AnyJob>) -> bool {
        let (own, added) = (Arc::clone(&self.inner), Ref::watched(job));
        let is_added = unstopped(move || {
            own.cancelled.listen(|dependents| {
                retain_amortised(&mut dependents.jobs, Watch::is_alive);
                dependents.jobs.push(added);
            })
        });
        !is_added && job.end_queued(crate::Interrupted::Cancelled, None) > 0
    }
}

impl Inner {
    fn cancel(self: &Arc<Inner>) {
        // A list and not recursion: chains of children may be long.
        let mut pending = vec![Arc::clone(self)];
        while let Some(token) = pending.pop() {
            let dependents = unstopped(move || token.cancelled.say());
            pending.extend(dependents.children.iter().filter_map(Weak::upgrade));
            for job in dependents.jobs.iter().filter_map(Watch::upgrade) {
                // It may be the last to hold the job, and its value.
                contain(move || {
                    job.end_queued(crate::Interrupted::Cancelled, None);
                    drop(job);
                });
            }
        }
    }
}

impl Drop for Inner {
    /// A list and not recursion, as above.
    fn drop(&mut self) {
        let mut parent = self.parent.take();
        while let Some(mut inner) = parent.and_then(Arc::into_inner) {
            parent = inner.parent.take();
        }
    }
}

/// Forgets what is gone, but only when the list would grow, so that adding stays cheap: afterwards
/// there is room for as many again as are left.
fn retain_amortised<T>(list: &mut Vec<T>, keep: impl FnMut(&T) -> bool) {
    if list.len() == list.capacity() {
        list.retain(keep);
        list.reserve(list.len() + 1);
    }
}
