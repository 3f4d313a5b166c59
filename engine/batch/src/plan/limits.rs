//! What holds for the run as a whole, out of several files and the command line.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use super::findings::{Findings, Place, place_of, source_of};
use super::{Limits, Overrides};
use crate::job_file::{JobFile, Refused};
use crate::read::can_name_resource;
use crate::source::{Source, Spanned};

/// A key of the run that several files may give.
struct RunKey {
    key: String,
    option: String,
}

/// What holds for the run as a whole.
pub(super) struct Settled {
    pub(super) limits: Limits,
    pub(super) pools: Vec<(String, u32)>,
    pub(super) resources: Vec<(String, u32)>,
    pub(super) max_fails: Option<u32>,
    /// What each file says of this that could not be read.
    pub(super) refused: Vec<Refused>,
}

/// Variables that every job has, whatever resources there are.
const TAKEN: [&str; 4] = [
    "REIVER_JOB",
    "REIVER_ATTEMPT",
    "REIVER_RUN_ID",
    "REIVER_NODE",
];

/// An option before a file, a file before the machine.
pub(super) fn settle(
    sources: &[Arc<Source>],
    files: &[JobFile],
    overrides: &Overrides,
    machine: Limits,
    findings: &mut Findings,
) -> Settled {
    let mut one = |key: &str, option: &str, of: fn(&JobFile) -> &Option<Spanned<u32>>, least| {
        let given = files.iter().filter_map(|file| {
            let spanned = of(file).as_ref()?;
            Some((spanned.value.max(least), place_of(file.source, spanned)))
        });
        agree(sources, &RunKey::new(key, option), given, findings)
    };
    let or_files = |settled: Option<u32>, of: &mut dyn FnMut() -> Option<u32>| {
        settled.map(|value| value.max(1)).or_else(of)
    };
    let cpus = or_files(overrides.cpus, &mut || {
        one("limits.cpus", "--limit cpus=N", |file| &file.limits.cpus, 1)
    });
    let io = or_files(overrides.io, &mut || {
        one("limits.io", "--limit io=N", |file| &file.limits.io, 1)
    });
    let max_fails = or_files(overrides.max_fails, &mut || {
        one("max-fails", "--max-fails N", |file| &file.max_fails, 1)
    });
    let memory = overrides.memory.or_else(|| {
        let given = files.iter().filter_map(|file| {
            let spanned = file.limits.memory.as_ref()?;
            Some((spanned.value, place_of(file.source, spanned)))
        });
        let key = RunKey::new("limits.memory", "--limit memory=SIZE");
        agree(sources, &key, given, findings)
    });
    let load = overrides.load.or_else(|| {
        let given = files.iter().filter_map(|file| {
            let spanned = file.limits.load.as_ref()?;
            Some((spanned.value, place_of(file.source, spanned)))
        });
        let key = RunKey::new("limits.load", "--limit load=X");
        agree(sources, &key, given, findings)
    });
    let (pools, _) = named(
        sources,
        files,
        &overrides.pools,
        ("pools", "--pool"),
        |file| &file.pools,
        findings,
    );
    let (resources, places) = named(
        sources,
        files,
        &overrides.resources,
        ("resources", "--resource"),
        |file| &file.resources,
        findings,
    );
    refuse_same_variables(&resources, &places, findings);
    Settled {
        limits: Limits {
            cpus: cpus.unwrap_or(machine.cpus),
            io: io.unwrap_or(machine.io),
            memory: memory.or(machine.memory),
            load: load.or(machine.load),
        },
        pools,
        resources,
        max_fails,
        refused: files.iter().map(|file| file.refused.clone()).collect(),
    }
}

impl RunKey {
    fn new(key: &str, option: &str) -> RunKey {
        RunKey {
            key: key.to_owned(),
            option: option.to_owned(),
        }
    }
}

/// The variable in which a job gets the indices that it holds of a resource; `None` where that name
/// cannot be one, or the variable is another's already.
pub fn variable_of(resource: &str) -> Option<String> {
    let variable = variable(resource);
    let is_free = !TAKEN.contains(&variable.as_str());
    (can_name_resource(resource) && is_free).then_some(variable)
}

fn variable(resource: &str) -> String {
    format!("REIVER_{}", resource.to_uppercase().replace('-', "_"))
}

/// Names with numbers, of all files and of the options; and where each was given first in a file.
#[expect(clippy::type_complexity, reason = "two lists by the same names")]
fn named(
    sources: &[Arc<Source>],
    files: &[JobFile],
    overrides: &[(String, u32)],
    (what, option): (&str, &str),
    of: fn(&JobFile) -> &Vec<(Spanned<String>, Spanned<u32>)>,
    findings: &mut Findings,
) -> (Vec<(String, u32)>, BTreeMap<String, Place>) {
    let mut places = BTreeMap::new();
    let mut given: BTreeMap<&str, Vec<(u32, Place)>> = BTreeMap::new();
    for file in files {
        for (name, count) in of(file) {
            let place = place_of(file.source, name);
            places.entry(name.value.clone()).or_insert(place);
            let place = place_of(file.source, count);
            given
                .entry(&name.value)
                .or_default()
                .push((count.value, place));
        }
    }
    let mut settled: BTreeMap<String, u32> = overrides.iter().cloned().collect();
    for (name, given) in given {
        if !settled.contains_key(name) {
            let key = RunKey::new(&format!("{what}.{name}"), &format!("{option} {name}=N"));
            let value = agree(sources, &key, given.into_iter(), findings);
            settled.extend(value.map(|value| (name.to_owned(), value)));
        }
    }
    (settled.into_iter().collect(), places)
}

/// `places` are of the names that stand in files; the others come from options.
fn refuse_same_variables(
    resources: &[(String, u32)],
    places: &BTreeMap<String, Place>,
    findings: &mut Findings,
) {
    let names = resources.iter().map(|(name, _)| name.as_str());
    let of_options = names.filter(|name| !places.contains_key(*name));
    let mut first: BTreeMap<String, &str> = of_options.map(|name| (variable(name), name)).collect();
    for (name, place) in places {
        let variable = variable(name);
        if TAKEN.contains(&variable.as_str()) {
            let mut error = place.error(format!(
                "`{name}` would give jobs {variable}, which is taken"
            ));
            error.help = Some("call it something else".into());
            findings.push(error);
        } else if let Some(other) = first.insert(variable.clone(), name) {
            let message = format!("`{name}` and `{other}` would both give jobs {variable}");
            let mut error = place.error(message);
            error.help = Some("call one of them something else".into());
            let other = places
                .get(other)
                .map(|place| place.related("the other one"));
            error.related.extend(other);
            findings.push(error);
        }
    }
}

/// The first value given; every other one must be the same.
fn agree<T: Copy + PartialEq + Display>(
    sources: &[Arc<Source>],
    run_key: &RunKey,
    mut given: impl Iterator<Item = (T, Place)>,
    findings: &mut Findings,
) -> Option<T> {
    let (value, place) = given.next()?;
    for (other, other_place) in given {
        if other != value {
            let first = source_of(sources, place.source).given.display();
            let key = &run_key.key;
            let mut error =
                other_place.error(format!("`{key}` is {other} here and {value} in {first}"));
            error.help = Some(format!(
                "give one value, or settle it with `{}`",
                run_key.option
            ));
            error.related.push(place.related(format!("{value} here")));
            findings.push(error);
        }
    }
    Some(value)
}
