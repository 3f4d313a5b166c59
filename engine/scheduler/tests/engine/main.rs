//! What an engine promises, held on real threads.

mod batches;
mod breakers;
mod crews;
mod depth;
mod ends;
mod engines;
mod forks;
mod full;
mod hybrid;
mod jobs;
mod limits;
mod many;
mod metrics;
mod model;
mod nodes;
mod parallel;
mod peers;
mod placement;
mod pools;
mod scopes;
mod size;
mod waits;
mod watchdog;
mod watched;

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use reiver::{Engine, JobHandle, Priority};
use watchdog::watched;

/// An engine with this many workers, which no test outlives for long.
fn engine(workers: usize) -> Engine {
    watched();
    Engine::builder().cpu_workers(workers).build().unwrap()
}

/// Holds a worker until it is let go.
struct Held {
    go: SyncSender<()>,
    job: JobHandle<()>,
}

impl Held {
    fn new(engine: &Engine) -> Held {
        Held::at(engine, Priority::P1)
    }

    /// One of those that do jobs of this priority.
    fn at(engine: &Engine, priority: Priority) -> Held {
        let (go, wait) = sync_channel::<()>(1);
        let (says, begun): (_, Receiver<()>) = sync_channel(1);
        let job = engine.job().priority(priority).submit(move |_| {
            says.send(()).unwrap();
            wait.recv().unwrap();
        });
        let job = job.unwrap();
        begun.recv().unwrap();
        Held { go, job }
    }

    /// Lets it go and does not wait for it.
    fn let_go_alone(self) {
        self.go.send(()).unwrap();
    }

    fn let_go(self) {
        self.go.send(()).unwrap();
        self.job.join().unwrap();
    }
}
