//! Options that win over what files say, as the plan takes them.

use super::args::{Files, Limit, Shares};
use crate::plan::{Overrides, variable_of};

/// The error is what is wrong with the options.
pub(crate) fn overrides(files: &Files, shares: &Shares) -> Result<Overrides, String> {
    let mut overrides = Overrides {
        max_fails: shares.max_fails,
        affinity: shares.numa.map(Into::into),
        pools: one_each(&shares.pool).ok_or("one pool is given two values")?,
        resources: one_each(&shares.resource).ok_or("one resource is given two values")?,
        set: set_keys(files)?,
        ..Overrides::default()
    };
    let mut variables: Vec<_> = overrides
        .resources
        .iter()
        .map(|(name, _)| variable_of(name))
        .collect();
    variables.sort();
    if variables.windows(2).any(|pair| pair[0] == pair[1]) {
        let why = "two resources would give jobs one variable; call one of them something else";
        return Err(why.to_owned());
    }
    let jobs = shares.jobs.map(Limit::Cpus);
    for limit in jobs.into_iter().chain(shares.limit.iter().copied()) {
        let is_same = match limit {
            Limit::Cpus(value) => is_same(&mut overrides.cpus, value),
            Limit::Io(value) => is_same(&mut overrides.io, value),
            Limit::Memory(value) => is_same(&mut overrides.memory, value),
            Limit::Load(value) => is_same(&mut overrides.load, value),
        };
        if !is_same {
            return Err("one limit is given two values; -j N is --limit cpus=N".to_owned());
        }
    }
    Ok(overrides)
}

/// Sets a value; false where there was another.
fn is_same<T: Copy + PartialEq>(slot: &mut Option<T>, value: T) -> bool {
    slot.replace(value).is_none_or(|before| before == value)
}

/// Names with their numbers, each once; `None` where one has two.
fn one_each(given: &[(String, u32)]) -> Option<Vec<(String, u32)>> {
    let mut once: Vec<(String, u32)> = Vec::new();
    for (name, count) in given {
        match once.iter().find(|(known, _)| known == name) {
            None => once.push((name.clone(), *count)),
            Some((_, known)) if known == count => {}
            Some(_) => return None,
        }
    }
    Some(once)
}

/// What the command line sets, each key once; the error is what is wrong with it.
fn set_keys(files: &Files) -> Result<Vec<(String, String)>, String> {
    let mut keys: Vec<(String, String)> = Vec::new();
    for (key, value) in &files.set {
        match keys.iter().find(|(known, _)| known == key) {
            Some((_, before)) if before != value => {
                return Err(format!(
                    "--set: `{key}` is given two values, `{before}` and `{value}`"
                ));
            }
            Some(_) => {}
            None => keys.push((key.clone(), value.clone())),
        }
    }
    Ok(keys)
}
