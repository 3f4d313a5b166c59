//! Threads that rest, of which the last to lie down is the first to be woken: those that are not needed
//! rest for so long that they end, and the others find their caches warm.
//!
//! All of it is done under a lock, its owner's, but the waking itself. Who wakes a thread takes it out, and
//! then gives it a token that also counts before it sleeps; so it may come to the lock by itself meanwhile,
//! since its time is up, and finds there that it was woken. A token that comes later wakes it once for
//! nothing.

/// Whoever rests, with what wakes them.
#[derive(Debug)]
pub struct Resting<U>(Vec<(u64, U)>);

impl<U> Default for Resting<U> {
    fn default() -> Resting<U> {
        Resting(Vec::new())
    }
}

impl<U> Resting<U> {
    /// How many do that nobody has woken.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// A thread, which is up, lies down: it sleeps once it has let go of the lock.
    pub fn lie_down(&mut self, thread: u64, wakes: U) {
        self.0.push((thread, wakes));
    }

    /// A thread is up again, woken or not.
    pub fn get_up(&mut self, thread: u64) {
        // Who was not woken has mostly waited for longest.
        if let Some(at) = self.0.iter().position(|&(resting, _)| resting == thread) {
            self.0.remove(at);
        }
    }

    /// Somebody is up again: whoever calls this is to wake it.
    pub fn rouse(&mut self) -> Option<U> {
        self.0.pop().map(|(_, wakes)| wakes)
    }
}
