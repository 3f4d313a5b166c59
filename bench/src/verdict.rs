//! Who won a case, in numbers and in a plain sentence.
//!
//! The best median of ours meets the best of the peers, whoever that is; a floor is no peer, and is only
//! named beside them. Others of ours that are behind that peer are told, too, and are a loss.

use crate::case::{Case, Role};
use crate::numa;
use crate::pools::{IMITATED, IMITATION};
use crate::summary::Row;

/// Closer than this is a tie: no two runs agree better on a busy machine.
const TIE: f64 = 0.03;

/// How a case went at one number of threads.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) threads: usize,
    pub(crate) sentence: String,
    /// The best peer's median.
    pub(crate) best_peer: Option<f64>,
    pub(crate) lost: bool,
}

/// A verdict for each number of threads of a case.
pub(crate) fn of(case: &Case, rows: &[Row]) -> Vec<Verdict> {
    let mut threads: Vec<usize> = of_case(case, rows).map(|row| row.threads).collect();
    threads.dedup();
    threads
        .into_iter()
        .map(|threads| {
            at(
                of_case(case, rows)
                    .filter(|row| row.threads == threads)
                    .collect(),
                threads,
            )
        })
        .collect()
}

/// The rows of a case.
pub(crate) fn of_case<'r>(case: &Case, rows: &'r [Row]) -> impl Iterator<Item = &'r Row> {
    let (suite, name) = (case.suite, case.name);
    rows.iter()
        .filter(move |row| row.suite == suite && row.case == name)
}

fn best<'r>(rows: &[&'r Row], role: Role) -> Option<(&'r Row, f64)> {
    let of_role = rows.iter().filter(|row| row.role == role);
    let measured = of_role.filter_map(|row| Some((*row, row.median?)));
    measured.min_by(|(_, a), (_, b)| a.total_cmp(b))
}

fn at(rows: Vec<&Row>, threads: usize) -> Verdict {
    let (us, them) = (best(&rows, Role::Ours), best(&rows, Role::Peer));
    let (sentence, loses) = match (us, them) {
        (None, _) => ("reiver has no numbers.".to_owned(), them.is_some()),
        (Some((row, ours)), None) => {
            let sentence = format!(
                "{}: {}; no peer to compare with.",
                row.contender,
                number(ours)
            );
            (sentence, false)
        }
        (Some(us), Some(them)) => compared(us, them),
    };
    let behind = them.filter(|_| !loses);
    let behind = behind.map_or_else(String::new, |them| others_behind(&rows, them));
    let floor = match (us, best(&rows, Role::Floor)) {
        (Some((_, ours)), Some((row, floor))) if floor > 0.0 => {
            let (name, times) = (row.contender, ours / floor);
            format!(
                " The floor, {name}: {}; we are at {times:.2} times that{}.",
                number(floor),
                over(&rows, floor)
            )
        }
        _ => String::new(),
    };
    Verdict {
        threads,
        lost: loses || !behind.is_empty(),
        sentence: sentence
            + &behind
            + &floor
            + &beside(us, &rows)
            + &imitation(&rows)
            + &caveat(&rows),
        best_peer: them.map(|(_, median)| median),
    }
}

/// Those of ours that lose to the best peer, where the best of ours does not.
fn others_behind(rows: &[&Row], them: (&Row, f64)) -> String {
    let ours = rows.iter().filter(|row| row.role == Role::Ours);
    let compared = ours.filter_map(|row| Some(compared((row, row.median?), them)));
    let behind = compared.filter(|(_, loses)| *loses);
    behind
        .map(|(sentence, _)| format!(" But {sentence}"))
        .collect()
}

/// How far each of ours is above the floor, where that is a time.
fn over(rows: &[&Row], floor: f64) -> String {
    let ours = rows.iter().filter(|row| row.role == Role::Ours);
    let ours = ours.filter(|row| row.unit.starts_with("ns "));
    ours.filter_map(|row| {
        let over = row.median? - floor;
        Some(format!(", {} {over:+.1} ns", row.contender))
    })
    .collect()
}

/// Those whom people ask about by name, whoever else is best.
const ASKED_FOR: [(&str, &str); 2] = [
    ("mimalloc box", "Box on mimalloc"),
    ("mmap and munmap", "A fresh fault-in of every page"),
];

/// How they compare with the best of ours.
fn beside(us: Option<(&Row, f64)>, rows: &[&Row]) -> String {
    let Some((_, ours)) = us.filter(|(_, ours)| *ours > 0.0) else {
        return String::new();
    };
    let told = ASKED_FOR.iter().filter_map(|(name, words)| {
        let row = rows.iter().find(|row| row.contender == *name)?;
        Some(format!(
            " {words} takes {:.2} times what we take.",
            row.median? / ours
        ))
    });
    told.collect()
}

/// Closer than this is near enough for an imitation.
const NEAR: f64 = 1.5;

/// Whether our `sync.Pool` is like the real one, where both were measured.
fn imitation(rows: &[&Row]) -> String {
    let median = |name| rows.iter().find(|row| row.contender == name)?.median;
    let (Some(ours), Some(real)) = (median(IMITATION), median(IMITATED)) else {
        return String::new();
    };
    let ratio = ours / real;
    let how = if ratio > NEAR {
        "slower than it should be: to win over it says too much"
    } else if ratio < 1.0 / NEAR {
        "faster than it should be: the real one is easier to beat"
    } else {
        "near enough"
    };
    format!(" The imitation of sync.Pool takes {ratio:.2} times what Go's own does: {how}.")
}

/// What the machine cannot tell, of the suite that wants one with nodes.
fn caveat(rows: &[&Row]) -> String {
    if rows.iter().any(|row| row.suite == "numa") {
        numa::caveat().map_or_else(String::new, |said| format!(" {said}"))
    } else {
        String::new()
    }
}

/// The sentence, and whether we lost.
fn compared(us: (&Row, f64), them: (&Row, f64)) -> (String, bool) {
    let ((our_row, ours), (their_row, theirs)) = (us, them);
    let ratio = (theirs > 0.0 && ours > 0.0).then(|| ours / theirs);
    let level = ratio.map_or(ours == theirs, |ratio| (ratio - 1.0).abs() <= TIE);
    let (us, them) = (our_row.contender, their_row.contender);
    let numbers = format!(
        "{} against {} (p99 {} against {})",
        number(ours),
        number(theirs),
        number(our_row.p99.unwrap_or(ours)),
        number(their_row.p99.unwrap_or(theirs)),
    );
    let times = |ratio: Option<f64>, than: &str| {
        ratio.map_or_else(String::new, |ratio| format!(", {ratio:.2} times {than}"))
    };
    let sentence = if level {
        format!("{us} and {them} are level: {numbers}.")
    } else if ours < theirs {
        let less = times(ratio.map(|ratio| 1.0 / ratio), "less");
        format!("{us} wins over {them}: {numbers}{less}.")
    } else {
        format!(
            "{us} loses to {them}: {numbers}{}.",
            times(ratio, "as much")
        )
    };
    (sentence, !level && ours > theirs)
}

/// Three digits that matter.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(contender: &'static str, role: Role, median: Option<f64>) -> Row {
        Row {
            suite: "s",
            case: "c",
            contender,
            threads: 2,
            unit: "ms",
            median,
            p99: median,
            min: median,
            max: median,
            rounds: 1,
            costs: None,
            rate: None,
            note: None,
            figures: Default::default(),
            told: Vec::new(),
            role,
        }
    }

    #[test]
    fn the_best_of_ours_meets_the_best_peer() {
        let rows = [
            row("reiver a", Role::Ours, Some(4.0)),
            row("reiver b", Role::Ours, Some(2.0)),
            row("rayon", Role::Peer, Some(1.0)),
            row("chili", Role::Peer, None),
            row("serial", Role::Floor, Some(0.5)),
        ];
        let verdict = at(rows.iter().collect(), 2);
        assert!(verdict.lost);
        assert_eq!(verdict.best_peer, Some(1.0));
        assert!(verdict.sentence.contains("2.00 times as much"));
        assert!(
            verdict
                .sentence
                .starts_with("reiver b loses to rayon: 2.00 against 1.00")
        );
        assert!(verdict.sentence.contains("serial"));
    }

    #[test]
    fn a_hair_is_a_tie_and_nothing_is_a_loss() {
        let rows = [
            row("reiver", Role::Ours, Some(1.02)),
            row("rayon", Role::Peer, Some(1.0)),
        ];
        assert!(!at(rows.iter().collect(), 2).lost);
        let rows = [row("reiver", Role::Ours, None), rows[1].clone()];
        assert!(at(rows.iter().collect(), 2).lost);
    }

    #[test]
    fn one_of_ours_that_is_behind_is_a_loss_though_another_is_best() {
        let rows = [
            row("reiver", Role::Ours, Some(3.0)),
            row("reiver on workers", Role::Ours, Some(1.0)),
            row("mimalloc", Role::Peer, Some(2.0)),
        ];
        let verdict = at(rows.iter().collect(), 1);
        assert!(verdict.lost);
        let sentence = verdict.sentence;
        assert!(sentence.starts_with("reiver on workers wins over mimalloc"));
        assert!(sentence.contains(" But reiver loses to mimalloc: 3.00 against 2.00"));
        assert!(!at(vec![&rows[1], &rows[2]], 1).lost);
    }

    #[test]
    fn an_imitation_that_errs_is_said_to() {
        let says = |ours, real| {
            let rows = [
                row(IMITATION, Role::Peer, Some(ours)),
                row(IMITATED, Role::Peer, real),
            ];
            imitation(&rows.iter().collect::<Vec<_>>())
        };
        assert!(says(10.0, Some(9.0)).contains("near enough"));
        assert!(says(16.0, Some(10.0)).contains("slower than"));
        assert!(says(6.0, Some(10.0)).contains("faster than"));
        assert_eq!(says(6.0, None), "");
    }

    #[test]
    fn each_of_ours_is_so_far_above_the_floor() {
        let in_ns = |row| Row {
            unit: "ns an operation",
            ..row
        };
        let rows = [
            in_ns(row("reiver", Role::Ours, Some(4.0))),
            in_ns(row("reiver on workers", Role::Ours, Some(2.0))),
            in_ns(row("no pool", Role::Floor, Some(1.5))),
        ];
        let sentence = at(rows.iter().collect(), 1).sentence;
        assert!(
            sentence.contains("reiver +2.5 ns, reiver on workers +0.5 ns"),
            "{sentence}"
        );
    }

    #[test]
    fn those_who_are_asked_for_are_told_though_another_is_best() {
        let rows = [
            row("reiver", Role::Ours, Some(2.0)),
            row("best of all", Role::Peer, Some(1.0)),
            row("mimalloc box", Role::Peer, Some(7.0)),
        ];
        let sentence = at(rows.iter().collect(), 1).sentence;
        assert!(
            sentence.contains("Box on mimalloc takes 3.50 times"),
            "{sentence}"
        );
    }
}
