//! The machine that was measured on, as people would describe it.
//!
//! All of it is read from /proc; what is not there is unknown. The load is that before the first child.

use std::fs;

use crate::versions;

/// Pairs of a name and what is so.
pub(crate) fn describe() -> Vec<(&'static str, String)> {
    let unknown = || "unknown".to_owned();
    let read = |path| fs::read_to_string(path).ok();
    let cores = std::thread::available_parallelism().map_or_else(|_| unknown(), |n| n.to_string());
    let kernel = read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned());
    let load = read("/proc/loadavg").map(|text| {
        let averages: Vec<&str> = text.split_whitespace().take(3).collect();
        let busy = averages.first().and_then(|load| load.parse::<f64>().ok());
        let noise = busy.is_some_and(|load| load > 0.5);
        averages.join(" ")
            + if noise {
                ": others are at work here, expect noise"
            } else {
                ""
            }
    });
    let field = |path, name: &str| {
        read(path).and_then(|text| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
    };
    vec![
        (
            "CPU",
            field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
        ),
        ("CPUs for this process", cores),
        (
            "memory",
            field("/proc/meminfo", "MemTotal").unwrap_or_else(unknown),
        ),
        ("kernel", kernel.unwrap_or_else(unknown)),
        (
            "rustc",
            versions::first_line("rustc").unwrap_or_else(unknown),
        ),
        ("load before", load.unwrap_or_else(unknown)),
    ]
}
