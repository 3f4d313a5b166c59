//! Keys that the command line gives to placeholders: `--set key=value`.

use super::matrix::TAKEN;
use crate::template::is_key;

/// Keys with their values, in the order in which they were given, and whether some job uses them.
#[derive(Debug, Clone, Default)]
pub(super) struct SetKeys(Vec<SetKey>);

#[derive(Debug, Clone)]
struct SetKey {
    key: Box<str>,
    value: Box<str>,
    is_used: bool,
}

impl SetKeys {
    pub(super) fn of(pairs: &[(String, String)]) -> SetKeys {
        let own = |(key, value): &(String, String)| SetKey {
            key: key.as_str().into(),
            value: value.as_str().into(),
            is_used: false,
        };
        SetKeys(pairs.iter().map(own).collect())
    }

    /// The place of a key.
    pub(super) fn find(&self, key: &str) -> Option<usize> {
        self.0.iter().position(|own| &*own.key == key)
    }

    pub(super) fn value(&self, place: usize) -> &str {
        &self.0[place].value
    }

    pub(super) fn use_key(&mut self, place: usize) {
        self.0[place].is_used = true;
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|own| &*own.key)
    }

    pub(super) fn unused(&self) -> impl Iterator<Item = &str> {
        let unused = self.0.iter().filter(|own| !own.is_used);
        unused.map(|own| &*own.key)
    }
}

/// Why a text is no key that a placeholder could name and the command line could set.
///
/// # Errors
/// With the reason, and what to do.
pub fn check_set_key(key: &str) -> Result<(), String> {
    if !is_key(key) {
        return Err(format!(
            "`{key}` is no key: it is of letters, digits, `_` and `-`"
        ));
    }
    if TAKEN.contains(&key) {
        return Err(format!(
            "`{key}` is the job's own: call the key something else"
        ));
    }
    Ok(())
}
