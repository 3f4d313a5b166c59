//! Spare workers, which take the place of those that wait inside work of their own.
//!
//! A worker that waits for a job does no other job meanwhile: on top of the one that waits, another
//! might wait for that very one, and neither would ever end; and stacks would grow with the queue.
//! So it hands its place on: where there is work that it leaves, a spare thread of its node becomes a
//! worker like any other. Once the wait is over there is one worker too many, and a spare rests as
//! soon as it is between tasks. For that long, and no longer, more threads run than there are CPUs.
//!
//! Spares are seats that are there from the start, so that everybody can steal from them; their
//! threads are started when first needed, and then rest until they are needed again. They are
//! bounded; where there are none left, the worker that waits does other work itself, on its own
//! stack, up to a depth. [`Engine::blocking`] hands a place on for code that blocks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::crew::Crew;
use crate::current::Current;
use crate::engine::Engine;
use crate::shared::Shared;
use crate::worker::Worker;

/// Spares of a node with so many workers. Each is a deque and a thread that sleeps: for a job that
/// waits on every worker, and as many again that those wait for, several times over.
pub(crate) fn spares_for(workers: usize) -> usize {
    (4 * workers).clamp(16, 256)
}

/// The spares of one node.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that have no thread yet.
    unstarted: Vec<Worker>,
    /// The numbers of those whose threads rest.
    resting: Vec<usize>,
    /// Those that work.
    active: usize,
    /// Workers that have handed their place on.
    replaced: usize,
}

impl Spares {
    pub(crate) fn new(unstarted: Vec<Worker>) -> Spares {
        let state = State {
            unstarted,
            ..State::default()
        };
        Spares {
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the place of a worker of this node, which has this index, on. False if there is no spare left, or no thread to
    /// be had for one.
    pub(crate) fn replace(&self, shared: &Arc<Shared>, crew: &Crew, node: usize) -> bool {
        let unstarted = {
            let mut state = self.state();
            if state.active > state.replaced {
                // One that has not come to rest since it was needed last.
                state.replaced += 1;
                drop(state);
                // It may sleep inside work of its own; woken, it hands its place on in turn.
                crew.pass_on(shared, node);
                return true;
            }
            if let Some(spare) = state.resting.pop() {
                state.replaced += 1;
                state.active += 1;
                crew.note_spares(1);
                crew.workers[spare].unparker.unpark();
                return true;
            }
            // Threads are short where one was refused; whoever starts them may be busy for long.
            let is_short = shared.io.is_refused();
            let Some(unstarted) = state.unstarted.pop_if(|_| !is_short) else {
                return false;
            };
            state.replaced += 1;
            state.active += 1;
            unstarted
        };
        crew.note_spares(1);
        let Err(refused) = shared.spawner.start_spare(shared, unstarted) else {
            return true;
        };
        let mut state = self.state();
        state.replaced -= 1;
        state.active -= 1;
        state.unstarted.extend(refused.map(|spare| *spare));
        crew.note_spares(-1);
        false
    }

    /// How many workers have handed their place on.
    pub(crate) fn replaced(&self) -> usize {
        self.state().replaced
    }

    /// A worker that had handed its place on has it back.
    pub(crate) fn give_back(&self) {
        self.state().replaced -= 1;
    }

    /// A spare is between tasks: true if it is one too many, and is to rest now.
    pub(crate) fn rests(&self, spare: usize, crew: &Crew) -> bool {
        let mut state = self.state();
        let rests = state.active > state.replaced;
        if rests {
            state.active -= 1;
            state.resting.push(spare);
            crew.note_spares(-1);
        }
        rests
    }

    /// True while it is to rest on.
    pub(crate) fn still_rests(&self, spare: usize) -> bool {
        self.state().resting.contains(&spare)
    }
}

impl Engine {
    /// Runs `body`, which blocks: on a worker of this engine another thread takes the worker's place
    /// meanwhile, elsewhere it is simply called. So a lock, a channel or a file may be waited for
    /// inside a CPU job without a core standing still, and without waiting in vain for what another
    /// job would do.
    ///
    /// Costs waking a thread, or the first times starting one, some 10 to 50 µs. A node has four spare
    /// threads for each of its workers, at least 16 and at most 256; once all are taken it is as if it
    /// were not there: more jobs than that at once that wait so for each other may wait for ever.
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    ///
    /// let engine = reiver::Engine::builder().cpu_workers(1).build()?;
    /// let (says, hears) = channel();
    /// let waits = engine.submit(move |ctx| ctx.engine().blocking(|| hears.recv()));
    /// engine.submit(move |_| says.send(7)).join()??;
    /// assert_eq!(waits.join()?, Ok(7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn blocking<R>(&self, body: impl FnOnce() -> R) -> R {
        struct GiveBack<'c>(&'c Current, &'c Worker);

        impl Drop for GiveBack<'_> {
            fn drop(&mut self) {
                let GiveBack(current, worker) = self;
                current.set_blocks(false);
                let shared = current.engine().shared();
                worker.crew(shared).spares[worker.node()].give_back();
            }
        }

        Current::with(|current| {
            let shared = self.shared();
            let current = current.filter(|current| current.is_of(shared) && !current.blocks());
            let _place = current
                .and_then(|current| Some((current, current.worker()?)))
                .filter(|(_, worker)| {
                    let crew = worker.crew(shared);
                    crew.spares[worker.node()].replace(shared, crew, worker.node())
                })
                .map(|(current, worker)| {
                    current.set_blocks(true);
                    GiveBack(current, worker)
                });
            body()
        })
    }
}
