//! What only planning wants to know of a table: it is gone once there is a plan.

use super::findings::Place;
use super::table::Key;
use crate::job_file::When;
use crate::source::Span;
use crate::template::Template;

/// What only planning wants to know of a table.
pub(super) struct Draft {
    /// Where its name is written, or else it itself.
    pub(super) name: Span,
    /// False where a mistake in `name` makes its jobs' names mean nothing.
    pub(super) has_sound_name: bool,
    pub(super) needs: Box<[DraftNeed]>,
}

/// One entry of `needs`, before it is looked up.
pub(super) struct DraftNeed {
    pub(super) job: Template<Key>,
    pub(super) place: Place,
    pub(super) when: When,
}
