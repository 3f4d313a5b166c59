//! The runner as people call it: what it writes, and what it says when it cannot.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

fn bench() -> Command {
    Command::new(env!("CARGO_BIN_EXE_reiver-bench"))
}

#[test]
fn a_quick_run_writes_a_summary_and_a_page_with_every_contender() {
    let out = tempfile::tempdir().expect("a folder");
    let run = bench()
        .args([
            "--quick",
            "--rounds",
            "1",
            "--budget-ms",
            "20",
            "forkjoin/tree",
            "--out",
        ])
        .arg(out.path())
        .output()
        .expect("it starts");
    let told = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "{told}\n{}",
        String::from_utf8_lossy(&run.stderr)
    );

    let summary = fs::read(out.path().join("summary.json")).expect("a summary");
    let mut rows: Vec<Value> = serde_json::from_slice(&summary).expect("an array");
    // Measured where there is a C++ compiler and oneTBB, and said to be left out elsewhere.
    assert!(told.contains("onetbb"), "{told}");
    rows.retain(|row| row["contender"] != "onetbb");
    let names: BTreeSet<&str> = rows
        .iter()
        .filter_map(|row| row["contender"].as_str())
        .collect();
    assert_eq!(
        names,
        BTreeSet::from(["chili", "forte", "rayon", "reiver", "serial"])
    );
    let cpus = std::thread::available_parallelism().unwrap().get();
    for row in &rows {
        assert_eq!(
            (&row["suite"], &row["case"]),
            (&"forkjoin".into(), &"tree".into())
        );
        assert_eq!((&row["rounds"], &row["threads"]), (&1.into(), &cpus.into()));
        let (median, rate) = (&row["median"], &row["operations_per_second"]);
        let (median, rate) = (median.as_f64().unwrap(), rate.as_f64().unwrap());
        assert!(
            (median * rate / 1e3 - 1.0).abs() < 1e-9,
            "trees a second: {row}"
        );
        assert!(
            row["median"].as_f64().is_some_and(|median| median > 0.0),
            "{row}"
        );
    }

    let page = fs::read_to_string(out.path().join("report.html")).expect("a page");
    for name in names {
        assert!(
            told.contains(name) && page.contains(name),
            "{name} is told nowhere"
        );
    }
    assert!(page.contains("<svg") && page.contains("Where we lose"));
    assert!(
        !page.contains("<script") && !page.contains("src="),
        "it needs nothing else"
    );
}

#[test]
fn a_case_that_is_not_there_is_an_error_that_says_where_to_look() {
    let run = bench().arg("forkjoin/nothing").output().expect("it starts");
    assert!(!run.status.success());
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(
        errors.contains("forkjoin/nothing") && errors.contains("--list"),
        "{errors}"
    );
}

#[test]
fn a_child_prints_its_samples_as_one_line_of_json() {
    let run = bench()
        .args([
            "--quick",
            "--budget-ms",
            "5",
            "--child",
            "forkjoin",
            "wake",
            "park and unpark",
            "1",
        ])
        .output()
        .expect("it starts");
    let said: Value = serde_json::from_slice(&run.stdout).expect("JSON");
    assert!(
        said["samples"]
            .as_array()
            .is_some_and(|samples| !samples.is_empty())
    );
}

/// A load of some 60 ms a row: what is measured of it means nothing, but all of it is there.
#[test]
fn a_mixed_load_is_told_with_all_its_figures() {
    let out = tempfile::tempdir().expect("a folder");
    let run = bench()
        .args(["--quick", "--rounds", "2", "--budget-ms", "20"])
        .args(["mixed/p1-bulk", "--contender", "reiver"])
        .args(["--contender", "reiver, bulk at P2"])
        .arg("--out")
        .arg(out.path())
        .output()
        .expect("it starts");
    let told = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "{told}\n{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let summary = fs::read(out.path().join("summary.json")).expect("a summary");
    let rows: Vec<Value> = serde_json::from_slice(&summary).expect("an array");
    assert_eq!(rows.len(), 2);
    for row in &rows {
        let figure = |name: &str| row["figures"][name].as_f64().unwrap_or(f64::NAN);
        // 200 us of compute each, at the least.
        assert!(figure("p50") >= 195.0, "{row}");
        assert!(figure("p99") >= figure("p50"), "{row}");
        assert!(figure("useful %") > 0.0, "{row}");
        assert!(figure("blocked %") > 0.0, "{row}");
        // 10 ms of sleep each.
        assert!(figure("blocked p99") >= 10_000.0, "{row}");
    }
    assert!(told.contains("p99/bar"), "{told}");
}

/// The rows of a run of these suites that is as short as can be, without what Go and C++ are needed for.
fn shortest(suites: &[&str]) -> Vec<Value> {
    let out = tempfile::tempdir().expect("a folder");
    let run = bench()
        .args(["--quick", "--rounds", "1", "--budget-ms", "4", "--out"])
        .arg(out.path())
        .args(suites)
        .output()
        .expect("it starts");
    assert!(
        run.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
    let summary = fs::read(out.path().join("summary.json")).expect("a summary");
    serde_json::from_slice(&summary).expect("an array")
}

#[test]
fn every_contender_of_the_pools_and_counters_can_do_its_work() {
    let rows = shortest(&["pools", "counters"]);
    let named = |case: &str, name: &str| {
        let row = rows
            .iter()
            .find(|row| row["case"] == case && row["contender"] == name);
        row.unwrap_or_else(|| panic!("{case} has no {name}"))
    };
    for row in &rows {
        let may_be_skipped =
            ["go sync.Pool", "snmalloc-rs box"].contains(&row["contender"].as_str().unwrap_or(""));
        match row["note"].as_str() {
            Some(note) => assert!(may_be_skipped && note.starts_with("skipped: "), "{row}"),
            None => assert!(row["median"].as_f64().is_some_and(f64::is_finite), "{row}"),
        }
    }
    for name in [
        "reiver",
        "reiver on workers",
        "sync.Pool style",
        "mimalloc box",
        "no pool",
    ] {
        let row = named("depth-1", name);
        assert!(row["operations_per_second"].as_f64() > Some(0.0), "{row}");
        assert!(row["peak_kib"].as_u64() > Some(0), "{row}");
    }
    // A page is 4 KiB or more, and each is mapped anew.
    let faults = |name: &str| {
        let faults = &named("size-1m-pages", name)["minor_faults_per_operation"];
        faults.as_f64().expect("they are counted")
    };
    assert!(faults("mmap and munmap") >= 1.0);
    for name in ["no pool", "reiver", "reiver on workers", "reiver buffers"] {
        assert!(faults(name) < 0.5, "{name}: {}", faults(name));
    }
}

#[test]
fn the_real_sync_pool_is_measured_where_go_is() {
    let go = Command::new("go").arg("version").output();
    let required = std::env::var_os("REIVER_REQUIRE_GO").is_some();
    if !required && !go.is_ok_and(|go| go.status.success()) {
        eprintln!("skipped: go is not installed");
        return;
    }
    let rows = shortest(&["pools/handover", "pools/costly", "pools/burst"]);
    let real = rows.iter().filter(|row| row["contender"] == "go sync.Pool");
    let real: Vec<&Value> = real.collect();
    assert_eq!(real.len(), 3);
    for row in real {
        assert!(row["median"].as_f64() > Some(0.0), "{row}");
    }
}

/// Here or on a machine with nodes: loops have shares that add up, and what has no two nodes says so.
#[test]
fn loops_over_memory_are_told_with_their_shares() {
    let rows = shortest(&["numa"]);
    for row in &rows {
        let contender = row["contender"].as_str().unwrap_or("");
        let may_be_skipped = row["case"]
            .as_str()
            .is_some_and(|case| case.starts_with("remote-"))
            || ["rayon interleaved", "openmp spread"].contains(&contender);
        if let Some(note) = row["note"].as_str() {
            assert!(may_be_skipped && note.starts_with("skipped: "), "{row}");
            continue;
        }
        assert!(row["median"].as_f64() > Some(0.0), "{row}");
        let figure = |name: &str| row["figures"][name].as_f64();
        if row["case"]
            .as_str()
            .is_some_and(|case| case.starts_with("remote-"))
        {
            continue;
        }
        let stolen = figure("stolen %").unwrap_or(f64::NAN);
        assert!((0.0..=100.0).contains(&stolen), "{row}");
        if let (Some(local), Some(remote)) = (figure("local %"), figure("remote %")) {
            assert!((local + remote - 100.0).abs() < 0.05, "{row}");
        }
        if contender == "serial" {
            assert_eq!(figure("stolen %"), Some(0.0), "{row}");
        }
    }
    // At one thread, at as many as CPUs and at twice as many.
    let cpus = std::thread::available_parallelism().unwrap().get();
    let expected = BTreeSet::from([1, cpus, 2 * cpus]);
    for case in ["triad", "touch", "mixed"] {
        let ours = rows
            .iter()
            .filter(|row| row["case"] == case && row["contender"] == "reiver");
        let told = ours.filter_map(|row| {
            assert!(row["operations_per_second"].as_f64() > Some(0.0), "{row}");
            usize::try_from(row["threads"].as_u64()?).ok()
        });
        assert_eq!(told.collect::<BTreeSet<_>>(), expected, "{case}");
    }
}
