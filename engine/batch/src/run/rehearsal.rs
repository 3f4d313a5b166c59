//! A run without processes, to see where its jobs would go.

use std::sync::Arc;
use std::time::Instant;

use super::coordinator::Coordinator;
use super::stock::Held;
use crate::Plan;
use crate::event::{Placement, Status};

/// Where each job of a plan would go, if every one succeeded and all that start together ended
/// together; `None` for those that are not placed, or would not run then.
pub fn rehearse(plan: &Plan) -> Vec<Option<Arc<Placement>>> {
    let mut places = vec![None; plan.len()];
    let mut coordinator = Coordinator::new(plan, 0, &[]);
    let now = Instant::now();
    loop {
        let started: Vec<_> =
            std::iter::from_fn(|| coordinator.next(now).map(|(job, _)| job)).collect();
        if started.is_empty() {
            return places;
        }
        for job in started {
            let held = coordinator.held(job);
            places[job.0 as usize] = held.and_then(Held::placement).cloned();
            coordinator.ended(job, Status::Success, now);
        }
    }
}
