//! `reiver topology`.

use crate::case::Case;

#[test]
fn the_drawing_says_who_read_the_machine() {
    let case = Case::new();
    let done = case.reiver(&["topology"]).expect(0);
    assert!(done.stdout.contains("sysfs"), "{}", done.stdout);
    let synthetic = "NUMANode:2 Core:4 PU:2";
    let done = case.reiver(&["topology", "--reader", synthetic]).expect(0);
    assert!(done.stdout.contains("synthetic"), "{}", done.stdout);
    assert!(done.stdout.contains("node 1"), "{}", done.stdout);
}

#[test]
fn the_same_machine_can_be_had_as_json() {
    let case = Case::new();
    let arguments = ["topology", "--json", "--reader", "NUMANode:2 Core:4 PU:2"];
    let done = case.reiver(&arguments).expect(0);
    let machine: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(machine["nodes"].as_array().unwrap().len(), 2, "{machine:#}");
}

#[test]
fn a_machine_that_makes_no_sense_is_refused() {
    let case = Case::new();
    for reader in ["NUMANode:", "NUMANode:0", "Cabbage:3", "", "lscpu"] {
        let done = case.reiver(&["topology", "--reader", reader]);
        assert_eq!(done.code, 2, "{reader}: {done:?}");
        assert!(
            done.stderr.starts_with("reiver: "),
            "{reader}: {}",
            done.stderr
        );
    }
}

#[test]
fn boxes_close() {
    let case = Case::new();
    for reader in [
        "sysfs",
        "NUMANode:2 L3:2 Core:4 PU:2",
        "Package:2 NUMANode:1 Core:1",
    ] {
        let done = case.reiver(&["topology", "--reader", reader]).expect(0);
        for drawn in done.stdout.split("\n\n").skip(1) {
            let widths: Vec<usize> = drawn.lines().map(|line| line.chars().count()).collect();
            let is_box = drawn.starts_with(['+', '┌']);
            assert!(
                !is_box || widths.iter().all(|&width| width == widths[0]),
                "{drawn}"
            );
        }
    }
}

/// Two nodes as `lstopo` writes them; the second is memory alone.
const TWO: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE topology SYSTEM "hwloc2.dtd">
<topology version="3.0">
  <object type="Machine" os_index="0" cpuset="0x00000003">
    <object type="NUMANode" os_index="0" cpuset="0x00000003" gp_index="1" local_memory="1073741824"/>
    <object type="NUMANode" os_index="3" cpuset="0x00000003" gp_index="2" local_memory="2147483648"/>
    <object type="PU" os_index="0" cpuset="0x00000001"/>
    <object type="PU" os_index="1" cpuset="0x00000002"/>
  </object>
  <memattr name="Bandwidth" flags="5">
    <memattr_value target_obj_type="NUMANode" target_obj_gp_index="2" value="92160" initiator_cpuset="0x00000003"/>
  </memattr>
  <memattr name="Latency" flags="6">
    <memattr_value target_obj_type="NUMANode" target_obj_gp_index="2" value="130" initiator_cpuset="0x00000003"/>
  </memattr>
</topology>
"#;

#[test]
fn a_file_of_lstopo_is_drawn_with_how_fast_memory_is() {
    let case = Case::new();
    case.write("two.xml", TWO);
    case.write("machine", TWO);
    for reader in ["two.xml", "./machine"] {
        let done = case.reiver(&["topology", "--reader", reader]).expect(0);
        assert!(done.stdout.contains("(read by xml)"), "{}", done.stdout);
        assert!(
            done.stdout.contains("node 3: 2 GiB of memory"),
            "{}",
            done.stdout
        );
        assert!(
            done.stdout.contains("from node 0: 90 GiB/s, 130 ns"),
            "{}",
            done.stdout
        );
    }
    let done = case.reiver(&["topology", "--json", "--reader", "two.xml"]);
    let machine: serde_json::Value = serde_json::from_str(&done.expect(0).stdout).unwrap();
    let access = &machine["nodes"][1]["accesses"][0];
    assert_eq!(access["from"], 0, "{machine:#}");
    assert_eq!(access["bandwidth_mib_s"], 92_160, "{machine:#}");
    assert_eq!(access["latency_ns"], 130, "{machine:#}");
}

#[test]
fn a_file_that_is_no_good_is_named_with_the_place_and_a_remedy() {
    let case = Case::new();
    case.write("cut.xml", &TWO[..TWO.len() / 2]);
    for (reader, part) in [
        ("cut.xml", "cut.xml:7:52:"),
        ("cut.xml", "lstopo machine.xml"),
        ("none.xml", "cannot read none.xml"),
        ("./none", "cannot read ./none"),
        (".", "`.` is no"),
    ] {
        let done = case.reiver(&["topology", "--reader", reader]);
        assert_eq!(done.code, 2, "{reader}: {done:?}");
        assert!(done.stderr.starts_with("reiver: "), "{}", done.stderr);
        assert!(done.stderr.contains(part), "{}", done.stderr);
    }
}

#[test]
fn hwloc_reads_this_machine_where_it_is_built_in_and_else_it_is_said_how_to_get_it() {
    let done = Case::new().reiver(&["topology", "--reader", "hwloc"]);
    if done.code == 0 {
        assert!(done.stdout.contains("(read by hwloc)"), "{}", done.stdout);
    } else {
        assert_eq!(done.code, 2, "{done:?}");
        assert!(done.stderr.contains("--features hwloc"), "{}", done.stderr);
        assert!(done.stderr.contains("libhwloc-dev"), "{}", done.stderr);
    }
}
