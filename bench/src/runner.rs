//! Starts a child for every case, contender and number of threads, and brings home what they say.
//!
//! It does so round by round, each round in a new order, one child at a time. It pins nothing. A child
//! that fails or hangs has its place in the result, with the reason in place of numbers.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::args::Args;
use crate::case::{Case, Contender, Figures, Trouble};
use crate::child::Said;
use crate::costs::Costs;
use crate::summary::{self, Row};
use crate::{machine, report, table};

/// One contender at one number of threads, and what it gave so far.
#[derive(Debug)]
pub(crate) struct Entry<'c> {
    pub(crate) case: &'c Case,
    pub(crate) contender: &'c Contender,
    pub(crate) threads: usize,
    /// The samples of each round.
    pub(crate) rounds: Vec<Vec<f64>>,
    /// What was measured beside them, of each round.
    pub(crate) figures: Vec<Figures>,
    /// What each round took beside time, of those who look.
    pub(crate) costs: Vec<Costs>,
    pub(crate) trouble: Option<Trouble>,
}

/// Runs what is asked for and tells it; whether no contender failed.
pub(crate) fn run(cases: &[Case], args: &Args) -> Result<bool, String> {
    let chosen = chosen(cases, &args.only, args.quick)?;
    if args.list {
        for case in chosen {
            println!(
                "{}/{}: {} [{}]",
                case.suite, case.name, case.what, case.unit
            );
        }
        return Ok(true);
    }
    fs::create_dir_all(&args.out).map_err(|error| format!("{}: {error}", args.out.display()))?;
    let machine = machine::describe();
    let mut entries = entries(&chosen, args);
    rounds(&mut entries, args)?;

    let rows: Vec<Row> = entries.iter().map(summary::row).collect();
    table::print(&chosen, &rows, &machine);
    summary::write(&args.out.join("summary.json"), &rows)?;
    report::write(&args.out.join("report.html"), &chosen, &rows, &machine)?;
    println!(
        "written: {0}/summary.json, {0}/report.html",
        args.out.display()
    );
    let failed = |entry: &Entry<'_>| matches!(entry.trouble, Some(Trouble::Failed(_)));
    Ok(!entries.iter().any(failed))
}

/// The cases that somebody asked for. What is slow is left out of a quick run unless it is named.
fn chosen<'c>(cases: &'c [Case], only: &[String], quick: bool) -> Result<Vec<&'c Case>, String> {
    let all = |case: &Case| !(quick && case.slow);
    let means = |asked: &str, case: &Case| match asked.split_once('/') {
        None => asked == case.suite && all(case),
        Some((suite, name)) => {
            let rest = case.name.strip_prefix(name);
            suite == case.suite && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        }
    };
    for asked in only {
        if !cases.iter().any(|case| means(asked, case)) {
            return Err(format!(
                "there is no `{asked}`; `just bench --list` tells what there is"
            ));
        }
    }
    let wanted = |case: &&Case| {
        (only.is_empty() && all(case)) || only.iter().any(|asked| means(asked, case))
    };
    Ok(cases.iter().filter(wanted).collect())
}

fn entries<'c>(cases: &[&'c Case], args: &Args) -> Vec<Entry<'c>> {
    let mut entries = Vec::new();
    for case in cases {
        let threads = match (args.threads.as_slice(), args.quick) {
            (asked @ [_, ..], _) if !case.fixed => asked,
            (_, true) => &case.quick_threads,
            (_, false) => &case.threads,
        };
        for &threads in threads {
            let asked = |contender: &&Contender| {
                let only = &args.contenders;
                only.is_empty() || only.iter().any(|only| only == contender.name)
            };
            let contenders = case.contenders.iter().filter(asked);
            entries.extend(contenders.map(|contender| Entry {
                case,
                contender,
                threads,
                rounds: Vec::new(),
                figures: Vec::new(),
                costs: Vec::new(),
                trouble: None,
            }));
        }
    }
    entries
}

fn rounds(entries: &mut [Entry<'_>], args: &Args) -> Result<(), String> {
    let start = Instant::now();
    let mut order: Vec<usize> = (0..entries.len()).collect();
    let rounds_of = |entry: &Entry<'_>| match entry.case.once {
        true => 1,
        false => args.rounds(entry.case.rounds),
    };
    for round in 1..=entries.iter().map(rounds_of).max().unwrap_or(0) {
        shuffle(&mut order, u64::from(round));
        for (done, &index) in order.iter().enumerate() {
            progress(round, done, entries.len(), &entries[index], start);
            let entry = &mut entries[index];
            // Whoever was in trouble once is not asked again: a hang would cost minutes each round.
            if entry.trouble.is_some() || round > rounds_of(entry) {
                continue;
            }
            match measure(entry, round, args)? {
                Ok((samples, costs, figures)) => {
                    entry.rounds.push(samples);
                    entry.costs.extend(costs);
                    entry.figures.push(figures);
                }
                Err(trouble) => entry.trouble = Some(trouble),
            }
        }
    }
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    Ok(())
}

fn progress(round: u32, done: usize, of: usize, entry: &Entry<'_>, start: Instant) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let (case, contender) = (entry.case, entry.contender);
    eprint!(
        "\r\x1b[Kround {round}, {done}/{of}, {} s: {}/{} {}",
        start.elapsed().as_secs(),
        case.suite,
        case.name,
        contender.name,
    );
    // Nobody misses it.
    let _ = std::io::stderr().flush();
}

/// Another order for each seed, the same in each run (Fisher and Yates; the numbers are splitmix64).
fn shuffle(order: &mut [usize], seed: u64) {
    let mut state = seed;
    for last in (1..order.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let with = usize::try_from(mixed % (last as u64 + 1)).expect("an index");
        order.swap(last, with);
    }
}

/// The command line of a child.
pub(crate) fn child(task: &[&str; 4], args: &Args) -> Result<Command, String> {
    let itself = env::current_exe().map_err(|error| format!("where this program lies: {error}"))?;
    let mut command = Command::new(itself);
    command
        .arg("--child")
        .args(task)
        .arg("--out")
        .arg(&args.out);
    command
        .arg("--budget-ms")
        .arg(args.budget().as_millis().to_string());
    if args.quick {
        command.arg("--quick");
    }
    Ok(command)
}

/// What one child gave.
type Given = (Vec<f64>, Option<Costs>, Figures);

/// One child's samples; an error is this program's own.
fn measure(entry: &Entry<'_>, round: u32, args: &Args) -> Result<Result<Given, Trouble>, String> {
    let threads = entry.threads.to_string();
    let task = [
        entry.case.suite,
        entry.case.name,
        entry.contender.name,
        &threads,
    ];
    let mut command = child(&task, args)?;
    command
        .args(["--seed", &round.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = command
        .spawn()
        .map_err(|error| format!("a child: {error}"))?;
    let (line, errors) = listen(&mut process);
    // Long enough for the slowest machine to make ready and to take its least sample.
    let limit = Duration::from_secs(120) + 10 * args.budget();
    let Ok(line) = line.recv_timeout(limit) else {
        // It may have just ended by itself.
        let _ = process.kill();
        let _ = process.wait();
        let why = format!("it hung for {} s and was killed", limit.as_secs());
        return Ok(Err(Trouble::Failed(why)));
    };
    let status = process
        .wait()
        .map_err(|error| format!("a child: {error}"))?;
    Ok(match serde_json::from_str(&line) {
        Ok(Said::Samples(samples)) => Ok((samples, None, Figures::new())),
        Ok(Said::Told(samples, figures)) => Ok((samples, None, figures)),
        Ok(Said::Measured {
            samples,
            costs,
            figures,
        }) => Ok((samples, Some(costs), figures)),
        Ok(Said::Skipped(why)) => Err(Trouble::Skipped(why)),
        Ok(Said::Failed(why)) => Err(Trouble::Failed(why)),
        Err(_) => {
            let errors = errors
                .recv_timeout(Duration::from_secs(1))
                .unwrap_or_default();
            Err(Trouble::Failed(format!("{status}: {}", errors.trim())))
        }
    })
}

/// A child's last line of output, and the first of its errors, once they are there.
fn listen(process: &mut Child) -> (mpsc::Receiver<String>, mpsc::Receiver<String>) {
    let (say, line) = mpsc::channel();
    let output = process.stdout.take().expect("it is piped");
    thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        // Nobody listens any more once the time is over.
        let _ = say.send(lines.last().unwrap_or_default());
    });
    let (say, errors) = mpsc::channel();
    let output = process.stderr.take().expect("it is piped");
    thread::spawn(move || {
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let first: Vec<String> = lines.by_ref().take(3).collect();
        let _ = say.send(first.join(" "));
        // Read on, or a child that says much would stand still.
        lines.for_each(drop);
    });
    (line, errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_keeps_everybody_and_differs_by_round() {
        let shuffled = |seed| {
            let mut order: Vec<usize> = (0..40).collect();
            shuffle(&mut order, seed);
            order
        };
        assert_eq!(shuffled(1), shuffled(1));
        assert_ne!(shuffled(1), shuffled(2));
        let mut sorted = shuffled(3);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..40).collect::<Vec<_>>());
    }

    #[test]
    fn a_case_stands_for_those_that_go_on_with_a_dash() {
        let cases = crate::forkjoin::cases();
        let names = |asked: &str| -> Vec<&str> {
            let chosen = chosen(&cases, &[asked.to_owned()], true).expect("it is there");
            chosen.iter().map(|case| case.name).collect()
        };
        assert_eq!(names("forkjoin/fib"), ["fib", "fib-t2"]);
        assert_eq!(names("forkjoin/fib-t2"), ["fib-t2"]);
        assert_eq!(
            names("forkjoin").len(),
            cases.iter().filter(|case| !case.slow).count()
        );
        assert!(chosen(&cases, &["forkjoin/fi".to_owned()], true).is_err());
    }
    #[test]
    fn a_quick_run_leaves_out_what_is_slow_unless_it_is_named() {
        let cases = crate::pools::cases();
        let has = |only: &[&str], quick| {
            let only: Vec<String> = only.iter().map(|&asked| asked.to_owned()).collect();
            let chosen = chosen(&cases, &only, quick).expect("it is there");
            chosen.iter().any(|case| case.name == "size-64-nothing")
        };
        assert!(!has(&[], true) && !has(&["pools"], true));
        assert!(has(&[], false) && has(&["pools"], false));
        assert!(has(&["pools/size-64-nothing"], true));
    }
}
