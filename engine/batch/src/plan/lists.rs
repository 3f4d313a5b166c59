//! Lists of needs, which jobs share.

use super::Need;
use crate::grouped::Grouped;

/// Lists by their numbers, from 0; that is the empty one.
///
/// A list may go on with another one, which many go on with: what a thousand jobs need of a stage of a
/// thousand is there once, and beside it what each of them needs besides. That other one stands before it,
/// is not empty, and does not go on.
#[derive(Debug)]
pub(super) struct Lists {
    own: Grouped<Need>,
    /// What each goes on with, 0 for nothing; as long as it has to be.
    goes_on: Vec<u32>,
}

impl Lists {
    /// The empty list, and room for more.
    pub(super) fn with_capacity(more: usize) -> Self {
        let mut own = Grouped::with_capacity(1 + more);
        own.push([]);
        let goes_on = Vec::new();
        Self { own, goes_on }
    }

    /// Adds a list, and returns its number. With an empty one it does not go on.
    pub(super) fn push(&mut self, own: impl IntoIterator<Item = Need>, goes_on: u32) -> u32 {
        let list = self.own.push(own);
        if !self.own(goes_on).is_empty() {
            self.goes_on.resize(list as usize, 0);
            self.goes_on.push(goes_on);
        }
        list
    }

    pub(super) fn len(&self) -> usize {
        self.own.len()
    }

    /// What a list holds itself.
    pub(super) fn own(&self, list: u32) -> &[Need] {
        self.own.get(list)
    }

    /// The list that one goes on with, 0 for none.
    pub(super) fn goes_on(&self, list: u32) -> u32 {
        self.goes_on.get(list as usize).copied().unwrap_or(0)
    }

    /// All that is on a list.
    pub(super) fn all(&self, list: u32) -> impl Iterator<Item = Need> + Clone {
        let rest = self.own(self.goes_on(list));
        self.own(list).iter().chain(rest).copied()
    }

    /// Each with its number, with what it holds itself and what it goes on with.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &[Need], u32)> {
        let lists = (0_u32..).zip(self.own.iter());
        lists.map(|(list, own)| (list, own, self.goes_on(list)))
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.own.shrink_to_fit();
        self.goes_on.shrink_to_fit();
    }
}
