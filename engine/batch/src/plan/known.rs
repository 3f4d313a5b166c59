//! What tables have in common: it is kept once, so that a million jobs beside each other are small.

use std::sync::Arc;

use super::Settings;
use super::matrix::Matrix;
use super::table::{Around, Base, Common};
use crate::source::SourceId;

/// What there is by now for tables to share.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Of the last table: those beside each other are mostly alike.
    last: Option<Arc<Common>>,
    /// Of this file's tables that state no [`OtherKeys`](crate::job_file::OtherKeys) and no needs: all of
    /// them have what the defaults say.
    pub(super) plain: Option<Arc<Common>>,
}

impl Known {
    /// What a table has in common with others, or has alone.
    pub(super) fn common(
        &mut self,
        source: SourceId,
        (settings, around): (Settings, Around),
        matrix: Matrix,
    ) -> Arc<Common> {
        let base = self.base(source, settings, matrix);
        let last = self.last.take().filter(|last| {
            Arc::ptr_eq(&last.base, &base) && last.around.is_empty() && around.is_empty()
        });
        let common = last.unwrap_or_else(|| Arc::new(Common { base, around }));
        Arc::clone(self.last.insert(common))
    }

    fn base(&self, source: SourceId, settings: Settings, matrix: Matrix) -> Arc<Base> {
        let last = self.last.as_ref().map(|last| &last.base);
        let last = last.filter(|last| last.source == source && *last.settings == settings);
        match last {
            Some(last) if last.matrix.is_single() && matrix.is_single() => Arc::clone(last),
            last => Arc::new(Base {
                source,
                settings: last.map_or_else(|| Arc::new(settings), |last| last.settings.clone()),
                matrix,
            }),
        }
    }
}
