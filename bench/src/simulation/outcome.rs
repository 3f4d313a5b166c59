//! What a simulated run has come to.

/// Sums and times of one run; times from the first submission on.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Run {
    pub(super) workers: usize,
    pub(super) makespan_ns: u64,
    /// Until nine workers in ten were at work at once; the makespan if they never were.
    pub(super) spread_ns: Option<u64>,
    /// As if all data were at hand.
    pub(super) work_ns: u64,
    /// Of that, done on the node where its data lies, or where its fork was made.
    pub(super) local_ns: u64,
    pub(super) leaves: u64,
    pub(super) forks: u64,
    /// Forks that were made stealable.
    pub(super) shared: u64,
    /// From workers of the own node, and from workers and injectors of others; robberies among them.
    pub(super) near_steals: u64,
    pub(super) far_steals: u64,
    pub(super) robberies: u64,
    pub(super) wakes: u64,
    pub(super) parks: u64,
    /// Steals from another node although the own had something before the search began.
    pub(super) passed_over: u64,
}

impl Run {
    /// Beside work that is divided among all with nothing lost.
    pub(super) fn over_ideal(&self) -> f64 {
        self.makespan_ns as f64 * self.workers as f64 / self.work_ns as f64
    }

    /// Of the work, 0 to 1.
    pub(super) fn far_share(&self) -> f64 {
        1.0 - self.local_ns as f64 / self.work_ns as f64
    }

    /// In microseconds.
    pub(super) fn spread_us(&self) -> f64 {
        self.spread_ns.unwrap_or(self.makespan_ns) as f64 / 1e3
    }
}
