//! How many atomic read-modify-writes and full fences a fork costs: callgrind says how often each
//! instruction ran, objdump which of them are atomic.
//!
//! fib(21) less fib(16) on one worker, with the others there but held, as in `counted.rs`. Stealing is
//! not in it: under callgrind one thread runs at a time, and who steals how often would be its doing.

use std::collections::HashSet;
use std::process::Command;
use std::{env, fs, process};

use crate::case::{Case, Outcome, Task, Trouble};
use crate::forkjoin::case;
use crate::forkjoin::counted::{callgrind, probe_held};
use crate::forkjoin::fib::{Fib, joins};
use crate::forks::forkers;
use crate::outside;

pub(super) fn cases() -> Vec<Case> {
    let what = "atomic read-modify-writes and full fences by callgrind, the other workers held";
    let mut atomics = case("atomics", "per million forks", what, forkers!(run));
    // Its atomic instructions are in a library of its own, where nobody looks.
    atomics
        .contenders
        .retain(|contender| contender.name != "onetbb");
    vec![atomics.at(&[2, 16, 64]).once().slow()]
}

fn run<F: Fib>(task: &Task) -> Outcome {
    if let Some(n) = task.probe {
        return probe_held::<F>(task, n);
    }
    let failed = |error: std::io::Error| Trouble::Failed(error.to_string());
    let itself = env::current_exe().map_err(failed)?;
    let mut objdump = Command::new("objdump");
    let code = outside::output(objdump.args(["-d", "--no-show-raw-insn"]).arg(&itself))?;
    let atomic = atomic_addresses(&String::from_utf8_lossy(&code.stdout));
    let object = itself.to_string_lossy().into_owned();

    let profile = task.out.join(format!("callgrind-{}", process::id()));
    let count = |n| {
        let mut valgrind = callgrind(&profile);
        valgrind.args([
            "--dump-instr=yes",
            "--compress-strings=no",
            "--compress-pos=no",
        ]);
        let ran = outside::probe(&mut valgrind, task, n);
        let text = fs::read_to_string(&profile).map_err(failed);
        // Callgrind leaves one even where the program fails; if not, there is none.
        let _ = fs::remove_file(&profile);
        let (_, text) = (ran?, text?);
        Ok(executed(&text, &object, &atomic))
    };
    let (large, small) = (count(21)?, count(16)?);
    let forks = (joins(21) - joins(16)) as f64;
    Ok(vec![(large as f64 - small as f64) * 1e6 / forks])
}

/// Where the atomic instructions of a disassembly lie: those that are locked, exchanges with memory,
/// which always are, and full fences.
fn atomic_addresses(code: &str) -> HashSet<u64> {
    let atomic = |line: &str| {
        let (address, instruction) = line.split_once(":\t")?;
        let mut words = instruction.split_whitespace();
        let is_atomic = match words.next()? {
            "lock" | "mfence" => true,
            "xchg" => instruction.contains('('),
            _ => false,
        };
        let address = u64::from_str_radix(address.trim(), 16).ok()?;
        is_atomic.then_some(address)
    };
    code.lines().filter_map(atomic).collect()
}

/// How often the instructions at `addresses` of `object` ran, in callgrind's format.
fn executed(profile: &str, object: &str, addresses: &HashSet<u64>) -> u64 {
    let mut inside = false;
    let mut is_call = false;
    let mut sum = 0;
    for line in profile.lines() {
        if let Some(name) = line.strip_prefix("ob=") {
            inside = name == object;
        }
        let after_call = std::mem::replace(&mut is_call, line.starts_with("calls="));
        // What a line says that follows a call is the cost of what was called.
        if after_call || !inside {
            continue;
        }
        let mut words = line.split_whitespace();
        let address = words.next().and_then(|word| word.strip_prefix("0x"));
        let address = address.and_then(|hex| u64::from_str_radix(hex, 16).ok());
        if address.is_some_and(|address| addresses.contains(&address)) {
            sum += words
                .nth(1)
                .and_then(|count| count.parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locked_instructions_exchanges_with_memory_and_fences_are_atomic() {
        let code = "0000000000001000 <f>:\n    1000:\tlock decq (%rax)\n    1004:\txchg   %ax,%ax\n    \
                    1006:\txchg   %rax,(%rdx)\n    1009:\tmfence\n    100c:\tmov    %rax,(%rdx)\n";
        assert_eq!(
            atomic_addresses(code),
            HashSet::from([0x1000, 0x1006, 0x1009])
        );
    }

    #[test]
    fn what_a_call_costs_is_not_what_its_instruction_does() {
        let profile = "ob=/a\nfn=f\n0x1000 12 5\ncalls=3 0x2000 1\n0x1000 12 900\n0x1004 13 2\n\
                       ob=/b\n0x1000 1 70\n";
        assert_eq!(executed(profile, "/a", &HashSet::from([0x1000])), 5);
    }
}
