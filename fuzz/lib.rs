//! What must hold of any bytes that are given as a job file: they are read, planned, and what is
//! wrong with them is shown, without a panic; and a plan that comes of them keeps its promises. And of
//! any that are given as a file of `lstopo`: they are a sound machine, or refused with words. And of any
//! that are a journal's first segment: they are read, or refused with a place, and salvaged.

use std::path::PathBuf;

use reiver_batch::{Form, Source, journal};
use reiver_topology::{CpuSet, Topology};

/// Jobs of one plan that are looked at; a matrix may unfold to millions.
const MOST_LOOKED_AT: usize = 200;

/// Takes `text` the whole way to a plan.
pub fn check(form: Form, text: &[u8]) {
    let source = Source {
        given: "jobs".into(),
        folder: PathBuf::from("/folder"),
        is_stream: false,
        form,
        text: text.to_vec(),
    };
    let (shown, plan) = reiver_cli::check(source);
    let Some(plan) = plan else {
        assert!(!shown.is_empty(), "refused without a word");
        return;
    };
    for job in plan.jobs().take(MOST_LOOKED_AT) {
        let name = plan.name(job);
        assert_eq!(plan.find(&name), Some(job), "its name finds another job");
        for need in plan.needs(job) {
            assert_ne!(need.job, job, "it needs itself");
        }
        let _ = (plan.attempt(job, 1), plan.command_text(job));
    }
    if let Some(first) = plan.jobs().next() {
        let name = plan.name(first).into_owned();
        let filtered = plan.filter(&name).expect("the name is there");
        assert_eq!(filtered.plan.len(), 1);
    }
}

/// Takes `bytes` for the first segment of a journal.
pub fn check_journal(bytes: &[u8]) {
    let folder = std::env::temp_dir().join(format!("reiver-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("segment-00000001"), bytes).expect("a file");
    match journal::look(&folder, false) {
        Ok(known) => {
            let known = known.expect("it is there");
            assert!(known.damage.is_empty());
            let past = journal::look(&folder, true)
                .expect("it is whole")
                .expect("it is there");
            assert_eq!(
                known.torn, past.torn,
                "what is whole has nothing to pass over"
            );
        }
        Err(error) => {
            assert!(!error.to_string().is_empty(), "refused without a word");
            if let Ok(Some(known)) = journal::look(&folder, true) {
                assert!(!known.damage.is_empty(), "there was nothing to refuse");
            }
        }
    }
}

/// Takes `text` the whole way to a machine that workers can be placed on.
pub fn check_machine(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else {
        return;
    };
    let machine = match Topology::from_xml_text(text) {
        Ok(machine) => machine,
        Err(error) => return assert!(!error.to_string().is_empty(), "refused without a word"),
    };
    let mut of_nodes = CpuSet::new();
    for id in machine.nodes() {
        let node = machine.node(id).expect("it is listed");
        assert!(
            of_nodes.intersection(&node.cpus).is_empty(),
            "two own a CPU"
        );
        of_nodes = of_nodes.union(&node.cpus);
        for to in machine.nodes() {
            assert_eq!(machine.distance(id, to) == 10, id == to, "{id} to {to}");
        }
    }
    let cpus: CpuSet = machine.cpus().iter().map(|cpu| cpu.id).collect();
    assert_eq!(of_nodes, cpus, "a CPU has no node");
    assert_eq!(machine.seats(cpus.len()).len(), cpus.len());
    assert_eq!(machine.pack(&cpus, cpus.len()), cpus);
    assert!(!reiver_cli::drawing(&machine).is_empty());
}
