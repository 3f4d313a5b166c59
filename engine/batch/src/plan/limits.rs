//! What holds for the run as a whole, out of several files and the command line.

use std::sync::Arc;

use super::findings::{Findings, place_of, source_of};
use super::{Limits, Overrides};
use crate::job_file::JobFile;
use crate::source::{Source, SourceId, Spanned};

/// A key of the run that several files may give.
struct RunKey {
    key: &'static str,
    option: &'static str,
}

/// The limits and `max-fails`: an option before a file, a file before the machine.
pub(super) fn settle(
    sources: &[Arc<Source>],
    files: &[JobFile],
    overrides: &Overrides,
    machine: Limits,
    findings: &mut Findings,
) -> (Limits, Option<u32>) {
    let mut one = |key, of: fn(&JobFile) -> &Option<Spanned<u32>>, settled: Option<u32>, least| {
        settled.map(|value| value.max(least)).or_else(|| {
            let given = files
                .iter()
                .filter_map(|file| Some((file.source, of(file).as_ref()?)));
            agree(sources, &key, given, least, findings)
        })
    };
    let cpus = RunKey {
        key: "limits.cpus",
        option: "--limit cpus=N",
    };
    let io = RunKey {
        key: "limits.io",
        option: "--limit io=N",
    };
    let max_fails = RunKey {
        key: "max-fails",
        option: "--max-fails N",
    };
    let limits = Limits {
        cpus: one(cpus, |file| &file.limits.cpus, overrides.cpus, 1).unwrap_or(machine.cpus),
        io: one(io, |file| &file.limits.io, overrides.io, 1).unwrap_or(machine.io),
    };
    (
        limits,
        one(max_fails, |file| &file.max_fails, overrides.max_fails, 1),
    )
}

/// The first value given; every other one must be the same.
fn agree<'f>(
    sources: &[Arc<Source>],
    run_key: &RunKey,
    given: impl Iterator<Item = (SourceId, &'f Spanned<u32>)>,
    least: u32,
    findings: &mut Findings,
) -> Option<u32> {
    let mut given =
        given.map(|(source, spanned)| (spanned.value.max(least), place_of(source, spanned)));
    let (value, place) = given.next()?;
    for (other, other_place) in given {
        if other != value {
            let first = source_of(sources, place.source).given.display();
            let key = run_key.key;
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
