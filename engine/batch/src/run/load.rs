//! Whether the machine is too busy for anything more to be started.

use std::fs;
use std::time::{Duration, Instant};

/// The kernel counts the load anew about every five seconds.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The limit on the load of the last minute, if there is one.
#[derive(Debug)]
pub(super) struct Load {
    limit: Option<f64>,
    /// When it is looked at again, and whether it was too high the last time.
    next: Option<(Instant, bool)>,
    was_said: bool,
}

impl Load {
    pub(super) fn new(limit: Option<f64>) -> Load {
        Load {
            limit,
            next: None,
            was_said: false,
        }
    }

    /// When to ask again, while the load is above the limit. Where the system does not tell the load
    /// there is no limit, which is said once.
    pub(super) fn is_too_high(&mut self, now: Instant) -> Option<Instant> {
        let limit = self.limit?;
        if let Some((next, was_high)) = self.next
            && now < next
        {
            return was_high.then_some(next);
        }
        let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = text
            .split(' ')
            .next()
            .and_then(|word| word.parse::<f64>().ok());
        let Some(load) = load else {
            tracing::warn!("cannot read /proc/loadavg: jobs are started whatever the load is");
            self.limit = None;
            return None;
        };
        let next = now + LOOK_AGAIN;
        let is_high = load > limit;
        self.next = Some((next, is_high));
        if is_high && !self.was_said {
            self.was_said = true;
            tracing::warn!("the load is {load}: nothing is started while it is above {limit}");
        }
        is_high.then_some(next)
    }
}
