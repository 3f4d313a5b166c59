//! Machines drawn at random: readers see what was drawn, and every rule holds.

use reiver_numa_tests::layout::Layout;
use reiver_topology::{NodeId, Topology};

use crate::{drawing, steal_order, topology};
use reiver_numa_tests::facts::differences;

/// So many seeds are held against the rules, each in well under a millisecond.
const SEEDS: u64 = 4000;
/// Of these many the kernel's files are written, some fifty each.
const WRITTEN_SEEDS: u64 = 200;

fn check_against(layout: &Layout, machine: &Topology) {
    let name = &layout.name;
    let shown: Vec<_> = layout.shown().collect();
    let numbers = shown.iter().map(|&(number, _)| NodeId(number));
    assert!(machine.nodes().eq(numbers), "{name}");
    for &(number, node) in &shown {
        let of_machine = machine.node(NodeId(number)).expect("it is shown");
        let cpus: Vec<u32> = of_machine.cpus.iter().map(|cpu| cpu.0).collect();
        assert_eq!(cpus, node.cpus, "{name}: node {number}");
        let bytes = u64::from(node.mib.unwrap_or(0)) << 20;
        assert_eq!(of_machine.memory_bytes, bytes, "{name}: node {number}");
        for &(to, _) in &shown {
            let distance = machine.distance(NodeId(number), NodeId(to));
            let told = u32::from(layout.distance(number, to));
            assert_eq!(distance, told, "{name}: from {number} to {to}");
        }
    }
    assert_eq!(machine.cpus().len(), layout.cpu_count() as usize, "{name}");
    for cpu in machine.cpus() {
        assert_eq!(cpu.core, layout.core_of(cpu.id.0), "{name}: CPU {}", cpu.id);
        assert_eq!(
            cpu.package,
            layout.socket_of(cpu.id.0),
            "{name}: CPU {}",
            cpu.id
        );
    }
}

#[test]
fn machines_drawn_at_random_keep_every_rule() {
    for seed in 0..SEEDS {
        let layout = Layout::random(seed);
        let machine = Topology::from_xml_text(&layout.to_xml());
        let machine = machine.unwrap_or_else(|error| panic!("{layout:?}: {error}"));
        check_against(&layout, &machine);
        topology::check_rules(&layout.name, &machine);
        topology::check_seats(&layout.name, &machine);
        topology::check_packing(&layout.name, &machine);
        drawing::check(&layout.name, &machine);
        let cpus = machine.cpus().len();
        for workers in [cpus.div_ceil(2), cpus, cpus + 1] {
            steal_order::check(&layout.name, &machine, &machine.seats(workers));
        }
    }
}

#[test]
fn the_kernels_files_of_a_random_machine_say_what_lstopos_do() {
    for seed in 0..WRITTEN_SEEDS {
        let layout = Layout::random(seed);
        let folder = tempfile::tempdir().expect("a temporary folder");
        layout.write_sysfs(folder.path()).expect("files");
        let from_sysfs = Topology::from_sysfs(folder.path());
        let from_sysfs = from_sysfs.unwrap_or_else(|error| panic!("{layout:?}: {error}"));
        check_against(&layout, &from_sysfs);
        let from_xml = Topology::from_xml_text(&layout.to_xml()).expect("a machine");
        assert_eq!(differences(&from_sysfs, &from_xml), [""; 0], "{layout:?}");
    }
}
