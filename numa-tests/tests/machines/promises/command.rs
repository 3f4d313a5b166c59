//! The command `reiver`, on the machine that it shows and whose processes it starts.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use reiver_topology::CpuSet;
use serde_json::Value;

use super::Ground;
use super::ground::status;
use crate::HERE;
use crate::here::REPORT;

/// This very program, by its other name.
pub(super) fn reiver() -> Command {
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

/// The events of a run of this job file, and what it said besides.
fn events_of(file: &str) -> (Vec<Value>, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("jobs.toml");
    fs::write(&path, file).expect("a file");
    let mut command = reiver();
    command.args(["run", "--output", "json"]).arg(&path);
    let output = command
        .current_dir(folder.path())
        .output()
        .expect("it can be executed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let events = String::from_utf8_lossy(&output.stdout);
    let event =
        |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{said}"));
    (events.lines().map(event).collect(), said)
}

/// By `numa`, as ordinary jobs, in the background, and with memory of their own.
pub(super) fn jobs_and_their_pages_are_where_they_ask(ground: &Ground) {
    let memory = ground.memory_nodes();
    let nodes = ground.topology.nodes();
    let nodes = nodes.filter(|id| memory.contains(id) && !ground.cpus_of(*id).is_empty());
    // By each way in which jobs are started, on one node; an emulated machine takes seconds for each run.
    let ways = ["", "priority = 'P2'", "memory = '64MiB'"];
    for (number, id) in nodes.enumerate() {
        for more in &ways[..if number == 0 { ways.len() } else { 1 }] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let file = folder.path().join("jobs.toml");
            let job = format!(
                "[[job]]\nname = 'there'\n{more}\nnuma = {{ affinity = 'require', policy = 'bind', nodes = [{id}] }}\n\
                 run = 'echo node $REIVER_NODE; grep Cpus_allowed_list /proc/self/status; cat /proc/self/numa_maps'\n\
                 [[job]]\nname = 'after'\nneeds = ['there']\nrun = 'echo; cat /proc/self/numa_maps'\n"
            );
            fs::write(&file, job).expect("a file");
            let said = output_of(reiver().arg("run").arg(&file).current_dir(folder.path()));
            let (there, after) = said.split_once("\n\n").expect("two jobs");
            assert!(there.starts_with(&format!("node {id}\n")), "{said}");
            assert!(!there.contains(" default "), "{there}");
            let cpus = there
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            assert_eq!(cpus.map(str::trim), Some(&*ground.cpus_of(id).to_string()));
            // What it shares with others lies where they have touched it.
            let own = there
                .lines()
                .filter(|line| line.contains(" anon=") && !line.contains(" file="));
            let mut pages = 0;
            for word in own.flat_map(|line| line.split(' ')) {
                let place = word.strip_prefix('N').and_then(|word| word.split_once('='));
                if let Some((node, count)) = place {
                    assert_eq!(node, id.to_string(), "{there}");
                    pages += count.parse::<u32>().expect("a number");
                }
            }
            assert!(pages > 2, "{there}");
            assert!(there.contains(&format!(" bind:{id}")), "{there}");
            assert!(!after.contains(" bind:"), "{after}");
        }
    }
}

/// Of one node where that has enough, and of no two jobs at once.
pub(super) fn jobs_have_cpus_of_their_own(ground: &Ground) {
    let cpus = ground.topology.cpus().len();
    let jobs = cpus / 2;
    let numbers: Vec<String> = (0..jobs).map(|job| job.to_string()).collect();
    let (events, said) = events_of(&format!(
        "[[job]]\nmatrix = {{ i = [{}] }}\ncpus = 2\n\
         run = 'grep Cpus_allowed_list /proc/self/status; sleep 2'\n",
        numbers.join(", ")
    ));
    // In the order in which CPUs were given, which is that of the file.
    let number = |event: &&Value| -> Option<usize> {
        let (_, number) = event["job"].as_str()?.rsplit_once('-')?;
        number.parse().ok()
    };
    let started = events.iter();
    let started = started.filter(|event| event["event"] == "job-started");
    let mut started: Vec<&Value> = started.collect();
    started.sort_by_key(number);
    let mut all = CpuSet::new();
    let mut count = 0;
    let has_two = |id: &reiver::NodeId| ground.cpus_of(*id).len() >= 2;
    let mut has_place = ground.topology.nodes().any(|id| has_two(&id));
    for event in started {
        let own = event["cpus"].as_array().expect("where it is");
        let own = own.iter().filter_map(|cpu| cpu.as_u64()?.try_into().ok());
        let own: CpuSet = own.map(reiver_topology::CpuId).collect();
        assert!(
            said.contains(&format!("Cpus_allowed_list:\t{own}\n")),
            "{own}: {said}"
        );
        assert!(event["node"].is_u64() || !has_place, "{event}");
        assert!(
            own.len() == 2 && all.intersection(&own).is_empty(),
            "{events:#?}"
        );
        all = all.union(&own);
        count += 1;
        has_place = ground
            .topology
            .nodes()
            .any(|id| ground.cpus_of(id).difference(&all).len() >= 2);
    }
    assert_eq!(count, jobs, "{said}");
}

/// In the group of the stance, as a user too, and in the root of the hierarchy.
pub(super) fn memory_that_a_job_states_is_its_limit(ground: &Ground) {
    memory_is_limited();
    if ground.site.is_root {
        let own = std::process::id().to_string();
        fs::write("/sys/fs/cgroup/cgroup.procs", own).expect("root may go anywhere");
        memory_is_limited();
    }
}

/// Nothing of its cgroups is left, and what is said is how it ended alone.
fn memory_is_limited() {
    let (events, said) = events_of(
        "[[job]]\nname = 'grows'\nmemory = '24MiB'\ncommand = ['grep', 'x', '/dev/zero']\n\
         [[job]]\nname = 'child'\nmemory = '24MiB'\nrun = 'grep x /dev/zero; exit 0'\n\
         [[job]]\nname = 'fits'\nmemory = '24MiB'\nrun = 'cat /proc/self/cgroup'\n\
         [[job]]\nname = 'killed'\nmemory = '24MiB'\nrun = 'kill -9 $$'\n",
    );
    assert!(!said.contains("WARN"), "{said}");
    for (name, reason) in [
        ("grows", Value::from("oom")),
        ("child", Value::from("oom")),
        ("fits", Value::Null),
        ("killed", Value::from("signal")),
    ] {
        let mut ends = events
            .iter()
            .filter(|event| event["event"] == "job-finished");
        let end = ends.find(|event| event["job"] == name);
        assert_eq!(end.expect("it ended")["reason"], reason, "{name}: {said}");
    }
    let run = events[0]["run"].as_str().expect("a run");
    assert!(
        said.contains(&format!("/reiver-{run}/")),
        "it ran in its own: {said}"
    );
    let own = fs::read_to_string("/proc/self/cgroup").expect("cgroups");
    let own = own.trim().strip_prefix("0::").expect("version 2");
    let own = Path::new("/sys/fs/cgroup").join(own.trim_start_matches('/'));
    for folder in [own.join(".."), own] {
        for entry in fs::read_dir(folder)
            .expect("the group of the stance")
            .flatten()
        {
            let name = entry.file_name();
            let is_of_run = name.as_encoded_bytes().starts_with(b"reiver-");
            assert!(!is_of_run, "{}", name.display());
        }
    }
}
