//! The example runs, and finds what it says: it checks its own result.
//!
//! It is run as built, which `cargo test` does unless it is asked for this test alone.

use std::process::Command;

#[test]
fn the_example_runs_and_prints_what_is_true() {
    let me = std::env::current_exe().unwrap();
    let target = me.parent().and_then(|deps| deps.parent()).unwrap();
    let path = target.join("examples").join("lines");
    assert!(
        path.exists(),
        "{} is not built; `cargo build -p reiver-pool --examples` builds it",
        path.display()
    );
    let output = Command::new(path).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("400000 words in 100000 lines"), "{text}");
    assert!(text.contains(" 0 after a trim"), "{text}");
}
