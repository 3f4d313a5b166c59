//! The command `reiver`, on the machine that it shows and whose processes it starts.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use reiver_topology::CpuSet;
use serde_json::Value;

use super::Ground;
use super::ground::status;
use crate::HERE;
use crate::here::REPORT;

/// This very program, by its other name.
fn reiver() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("reiver");
    command
}

fn output_of(command: &mut Command) -> String {
    let output = command.output().expect("it can be executed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

pub(super) fn topology_shows_the_machine(ground: &Ground) {
    let drawn = output_of(reiver().arg("topology"));
    println!("{drawn}");
    let shown = output_of(reiver().args(["topology", "--json"]));
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["workers"], ground.topology.worker_count());
    let nodes = shown["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), ground.topology.nodes().count());
    for (id, node) in ground.topology.nodes().zip(nodes) {
        assert_eq!(node["id"], id.0);
        let cpus: Vec<u32> = ground.cpus_of(id).iter().map(|cpu| cpu.0).collect();
        assert_eq!(node["cpus"], Value::from(cpus));
        let distances = ground
            .topology
            .nodes()
            .map(|to| ground.topology.distance(id, to));
        assert_eq!(
            node["distances"],
            Value::from(distances.collect::<Vec<u32>>())
        );
        assert!(drawn.contains(&format!("{id}")));
    }
}

/// As who has such a machine holds them there.
pub(super) fn promises_can_be_held_here(_: &Ground) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let names = ["topology_shows_the_machine", "jobs_near_data_run_there"];
    let mut command = Command::new("/proc/self/exe");
    let said = output_of(command.arg(HERE).args(names).current_dir(folder.path()));
    println!("{said}");
    assert!(said.contains("2 held, 0 broken, 0 left out"), "{said}");
    let report = fs::read_to_string(folder.path().join(REPORT)).expect("a report");
    for name in names {
        assert!(report.contains(&format!("{name} ... ok")), "{report}");
    }
}

/// The engine's threads are confined, and the processes that they start are not.
pub(super) fn jobs_may_use_all_that_reiver_may(_: &Ground) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("jobs");
    let jobs = "grep Cpus_allowed_list /proc/self/status; cat /proc/self/numa_maps\n".repeat(8);
    fs::write(&file, jobs).expect("a file");
    let said = output_of(reiver().arg("run").arg(&file).current_dir(folder.path()));
    let allowed: CpuSet = status("self", "Cpus_allowed_list");
    let given = said
        .lines()
        .filter_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let given: Vec<&str> = given.map(str::trim).collect();
    assert_eq!(given, vec![allowed.to_string(); 8]);
    let policies: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    assert!(policies.len() > 8);
    assert!(
        policies.iter().all(|policy| *policy == "default"),
        "{policies:?}"
    );
}
