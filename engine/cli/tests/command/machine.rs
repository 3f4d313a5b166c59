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
