//! Every ordering and fence that the protocol is said to need is taken away from some model, which is
//! expected to fail then.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What stands in quotes behind these words and before the next bracket closes, in the files of a
/// folder and below.
fn names_after(folder: &Path, words: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            names.extend(names_after(&path, words));
            continue;
        }
        let text = fs::read_to_string(&path).expect("source is text");
        for word in words {
            let calls = text.split(word).skip(1);
            let arguments = calls.filter_map(|rest| Some(rest.split_once([')', '{'])?.0));
            let quoted = arguments.flat_map(|arguments| arguments.split('"').skip(1).step_by(2));
            let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c == ' ');
            names.extend(quoted.filter(is_name).map(str::to_owned));
        }
    }
    names
}

#[test]
fn each_is_missed_by_a_model() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let words = ["needed(", "light(", "heavy(", "barrier("];
    let needed = names_after(&package.join("src"), &words);
    let taken_away = names_after(&package.join("tests"), &["fails_without("]);
    assert!(needed.len() > 10, "the words are those of `sync.rs`");
    let missing: Vec<_> = needed.difference(&taken_away).collect();
    assert!(missing.is_empty(), "no model is run without {missing:?}");
    let unknown: Vec<_> = taken_away.difference(&needed).collect();
    assert!(unknown.is_empty(), "nothing is called {unknown:?}");
}
