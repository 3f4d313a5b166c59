//! What only planning wants to know of a table: it is gone once there is a plan.

use crate::source::Span;

/// What only planning wants to know of a table. There may be millions.
pub(super) struct Draft {
    name_begin: usize,
    name_bytes: u32,
    /// False where a mistake in `name` makes its jobs' names mean nothing.
    pub(super) has_sound_name: bool,
    /// Where each of its [`needs`](super::table::Around::needs) is written.
    pub(super) needs: Box<[Span]>,
}

const _: () = assert!(size_of::<Draft>() == 32);

impl Draft {
    pub(super) fn new(name: &Span, has_sound_name: bool, needs: Box<[Span]>) -> Self {
        Self {
            name_begin: name.start,
            // Of a name of gigabytes the first four will do.
            name_bytes: u32::try_from(name.len()).unwrap_or(u32::MAX),
            has_sound_name,
            needs,
        }
    }

    /// Where its name is written, or else it itself.
    pub(super) fn name(&self) -> Span {
        self.name_begin..self.name_begin + self.name_bytes as usize
    }
}
