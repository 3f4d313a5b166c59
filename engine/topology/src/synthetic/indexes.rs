//! The operating system's numbers of a level, where they are not simply ascending: hwloc's attribute
//! `indexes`.
//!
//! It is a list of a number for each (`0,2,1,3`), or loops, the fastest first: `STEP*COUNT` goes
//! COUNT times on by STEP places, and `node:core` goes over nodes and, for each round of them, over
//! the cores in one. So `2*4:1*2` numbers the first thread of each of four cores, then the second.

use std::collections::BTreeSet;

use super::Kind;
use crate::CpuSet;

/// One of several nested loops over a level's places.
#[derive(Debug, Clone, Copy)]
struct Loop {
    step: usize,
    count: usize,
}

/// The number of each place, of which there are `total`. `above` has the levels around them and how
/// many there are of each in all.
pub(super) fn read(text: &str, total: usize, above: &[(Kind, usize)]) -> Result<Vec<u32>, String> {
    let is_list = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b',');
    let numbers = if is_list {
        list(text)?
    } else {
        numbered_by(&loops(text, total, above)?, total)?
    };
    let distinct: BTreeSet<u32> = numbers.iter().copied().collect();
    if numbers.len() != total || distinct.len() != total {
        return Err(format!("`{text}` does not give {total} different numbers"));
    }
    Ok(numbers)
}

fn list(text: &str) -> Result<Vec<u32>, String> {
    let number = |word: &str| match word.parse() {
        Ok(number) if number <= CpuSet::LARGEST.0 => Ok(number),
        _ => Err(format!("`{word}` is no number of a CPU or node")),
    };
    text.split(',').map(number).collect()
}

fn loops(text: &str, total: usize, above: &[(Kind, usize)]) -> Result<Vec<Loop>, String> {
    let mut loops = Vec::new();
    if text.contains('*') {
        for word in text.split(':') {
            let (step, count) = word.split_once('*').unwrap_or_default();
            let number = |word: &str| word.parse().ok().filter(|&n| (1..=total).contains(&n));
            match (number(step), number(count)) {
                (Some(step), Some(count)) => loops.push(Loop { step, count }),
                _ => return Err(format!("`{word}` is no loop; write it like 2*4")),
            }
        }
    } else {
        let widths = text.split(':').map(|name| width(name, above));
        let widths: Vec<usize> = widths.collect::<Result<_, _>>()?;
        let distinct: BTreeSet<usize> = widths.iter().copied().chain([1]).collect();
        for &width in &widths {
            let around = distinct.range(..width).next_back().copied().unwrap_or(1);
            let (step, count) = (total / width, width / around);
            loops.push(Loop { step, count });
        }
    }
    let product = |loops: &[Loop]| {
        let counts = loops.iter().map(|each| each.count);
        counts.fold(1, usize::saturating_mul)
    };
    // The innermost may be left out.
    let covered = product(&loops);
    let smallest = loops.iter().map(|each| each.step).min().unwrap_or(1);
    if covered < total && smallest.saturating_mul(covered) == total {
        let (step, count) = (1, total / covered);
        loops.push(Loop { step, count });
    }
    if product(&loops) == total {
        Ok(loops)
    } else {
        Err(format!("`{text}` does not go over {total} places"))
    }
}

/// How many there are of a level.
fn width(name: &str, above: &[(Kind, usize)]) -> Result<usize, String> {
    let kind = super::kind(name);
    let level = above.iter().find(|(level, _)| Some(*level) == kind);
    let (_, width) = level.ok_or_else(|| format!("there is no level `{name}` around it"))?;
    Ok(*width)
}

fn numbered_by(loops: &[Loop], total: usize) -> Result<Vec<u32>, String> {
    let number = |place: usize| {
        let mut number = 0;
        let mut worth = 1;
        for Loop { step, count } in loops {
            number += place / step % count * worth;
            worth *= count;
        }
        u32::try_from(number).map_err(|_| format!("{number} is too large a number"))
    };
    (0..total).map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_listed_or_go_in_loops() {
        let above = [(Kind::Package, 2), (Kind::Node, 4), (Kind::Core, 8)];
        let read = |text, total| read(text, total, &above);
        assert_eq!(read("0,2,1,3", 4), Ok(vec![0, 2, 1, 3]));
        assert_eq!(read("2*4:1*2", 8), Ok(vec![0, 4, 1, 5, 2, 6, 3, 7]));
        assert_eq!(read("2*4", 8), read("2*4:1*2", 8));
        let by_node = read("node:core", 16).expect("numbers");
        assert_eq!(by_node[..6], [0, 8, 4, 12, 1, 9]);
        assert_eq!(read("core", 16), read("2*8:1*2", 16));
    }

    #[test]
    fn what_is_no_numbering_is_refused() {
        let above = [(Kind::Core, 4)];
        for text in [
            "",
            "0,1",
            "0,0,1,2,3,4,5,6",
            "0,1,2,3,4,5,6,9999999",
            "3*2",
            "0*8",
            "4*1",
            "2*x",
            "core:core",
            "node",
            "core:",
            "*",
            "99999999999999999999*2",
        ] {
            assert!(read(text, 8, &above).is_err(), "{text}");
        }
    }
}
