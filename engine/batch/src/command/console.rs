//! Text for people: colours where they are wanted, and nothing that a job's name could do to a
//! terminal.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use reiver_topology::{CpuId, CpuSet};

use super::args::Color;
use super::streams;
use crate::Plan;
use crate::event::Placement;
use crate::job_file::MemoryPolicy;
use crate::plan::JobIndex;
use crate::shell::quote;

/// How text for one stream looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Console {
    /// Whether to use colours.
    pub(crate) color: bool,
    /// Whether it goes to a terminal.
    pub(crate) is_terminal: bool,
}

/// A colour by what it says.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tone {
    Good,
    Bad,
    Note,
}

impl Console {
    pub(crate) fn new(wanted: Color, is_terminal: bool) -> Console {
        let unless = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
        let color = match wanted {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                is_terminal
                    && unless("NO_COLOR")
                    && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        };
        Console { color, is_terminal }
    }

    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => 32,
            Tone::Bad => 31,
            Tone::Note => 33,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Writes a line to standard error; where that is gone, nobody is left to be told.
pub(crate) fn say(line: &str) {
    let _ = streams::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Text from outside, with its control characters as escapes.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            plain.extend(letter.escape_default());
        } else {
            plain.push(letter);
        }
    }
    plain
}

/// Characters of a line that are shown: what is binary, or one line of all, would bury the rest.
const MOST_OF_A_LINE: usize = 500;

/// The beginning of a line, and what stands for the rest.
pub(crate) fn beginning(line: &str) -> (&str, &'static str) {
    match line.char_indices().nth(MOST_OF_A_LINE) {
        Some((at, _)) => (&line[..at], "..."),
        None => (line, ""),
    }
}

/// What a job runs, on one line.
pub(crate) fn shown_command(plan: &Plan, job: JobIndex) -> String {
    let command = plan.command_text(job);
    let command = command.to_string_lossy();
    let (command, more) = beginning(&command);
    plain(command) + more
}

/// A word as one pastes it into a shell. What cannot be shown as it is, bytes that are no text among
/// it, is written as escapes, which most shells know.
pub(crate) fn to_paste(word: &[u8]) -> String {
    match std::str::from_utf8(word) {
        Ok(text) if plain(text) == text => quote(text).into_owned(),
        _ => {
            let escaped = word.iter().map(|&byte| match byte {
                b'\'' | b'\\' => format!("\\{}", char::from(byte)),
                b' '..=b'~' => char::from(byte).to_string(),
                _ => format!("\\x{byte:02x}"),
            });
            format!("$'{}'", escaped.collect::<String>())
        }
    }
}

/// A duration as people say it: `0.012 s`, `3.4 s`, `2 min 5 s`.
pub(crate) struct Pretty(pub(crate) Duration);

impl fmt::Display for Pretty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0 => write!(f, "{:.3} s", self.0.as_secs_f64()),
            1..60 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            60..3600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            _ => write!(f, "{} h {} min", seconds / 3600, seconds / 60 % 60),
        }
    }
}

/// Where a job is: `node 1, cpus 4-7, memory bound to node 1`.
pub(crate) fn place(placement: &Placement) -> String {
    let mut parts = Vec::new();
    parts.extend(placement.node.map(|node| format!("node {node}")));
    if !placement.cpus.is_empty() {
        parts.push(format!("cpus {}", placement.cpus));
    }
    if let Some((policy, nodes)) = &placement.memory {
        let nodes: CpuSet = nodes.iter().map(|node| CpuId(node.0)).collect();
        parts.push(match policy {
            MemoryPolicy::Bind => format!("memory of {nodes} alone"),
            MemoryPolicy::Preferred => format!("memory preferred of {nodes}"),
            MemoryPolicy::Interleave => format!("memory of {nodes} in turns"),
            MemoryPolicy::Local => "memory of the CPU's node".to_owned(),
        });
    }
    parts.join(", ")
}

/// `1 job`, `2 jobs`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\nc\u{7}"), "a\\u{1b}[31mb\\nc\\u{7}");
        assert_eq!(plain("größe"), "größe");
    }

    #[test]
    fn what_is_pasted_is_one_word_and_steers_nothing() {
        assert_eq!(to_paste(b"plain"), "plain");
        assert_eq!(to_paste("größe 1".as_bytes()), "'größe 1'");
        assert_eq!(to_paste(b"a\tb'\\\xff1"), r"$'a\x09b\'\\\xff1'");
    }

    #[test]
    fn durations_are_as_long_as_they_need_to_be() {
        let pretty = |ms| Pretty(Duration::from_millis(ms)).to_string();
        assert_eq!(pretty(12), "0.012 s");
        assert_eq!(pretty(3_440), "3.4 s");
        assert_eq!(pretty(125_000), "2 min 5 s");
        assert_eq!(pretty(7_320_000), "2 h 2 min");
    }
}
