//! What the command says of itself.

use crate::case::Case;

/// What tells the keys of a job apart; the tests run anywhere.
const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../batch/src/read/keys.rs");

#[test]
fn the_first_help_fits_a_screen() {
    let case = Case::new();
    let texts = [&["--help"][..], &["help"], &["-h"]];
    let texts = texts.map(|words| case.reiver(words).expect(0).stdout);
    assert!(texts[0].lines().count() <= 40, "{}", texts[0]);
    assert!(texts[0].lines().all(|line| line.chars().count() <= 100));
    assert_eq!(texts[0], texts[1]);
    for command in ["run", "check", "journal", "topology", "help FORMAT"] {
        assert!(texts[0].contains(command), "{command}");
    }
}

#[test]
fn help_knows_every_command_and_refuses_others() {
    let case = Case::new();
    for words in [
        &["run"][..],
        &["check"],
        &["journal"],
        &["journal", "show"],
        &["topology"],
    ] {
        let asked: Vec<&str> = ["help"].into_iter().chain(words.iter().copied()).collect();
        let help = case.reiver(&asked).expect(0).stdout;
        assert!(
            help.contains(&format!("reiver {}", words.join(" "))),
            "{help}"
        );
    }
    assert!(
        case.reiver(&["help", "run"])
            .expect(0)
            .stdout
            .contains("--keep-order")
    );
    let refused = case.reiver(&["help", "nothing"]).expect(2);
    assert!(
        refused.stderr.contains("no help about `nothing`"),
        "{}",
        refused.stderr
    );
}

/// A mistake in a job's keys lists what keys there are: the reference knows each.
#[test]
fn the_reference_of_job_files_knows_every_key_and_its_example_is_right() {
    let case = Case::toml("[[job]]\nrun = 'true'\nzzz = 1\n");
    let reference = case.reiver(&["help", "FORMAT"]).expect(0).stdout;
    assert_eq!(reference, case.reiver(&["help", "format"]).expect(0).stdout);
    assert!(reference.lines().all(|line| line.chars().count() <= 82));
    let keys = std::fs::read_to_string(KEYS).expect("its source");
    let known = reiver_keys(&keys);
    assert!(known.len() > 15, "{known:?}");
    for key in known {
        let is_told = reference
            .split(|letter: char| !letter.is_alphanumeric() && letter != '-')
            .any(|word| word == key);
        assert!(is_told, "{key}");
    }
    let (_, example) = reference.split_once("AN EXAMPLE\n").unwrap();
    case.write("example.toml", example.replace("\n  ", "\n"));
    let said = case.reiver(&["run", "--limit", "cpus=4", "--dry-run", "example.toml"]);
    assert!(said.expect(0).stdout.starts_with("5 jobs"));
}

/// The words in quotes by which a table's keys are told apart.
fn reiver_keys(source: &str) -> Vec<String> {
    let lines = source.lines().map(str::trim);
    let keys = lines.filter_map(|line| {
        let (key, rest) = line.strip_prefix('"')?.split_once('"')?;
        let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        (is_key && rest.trim_start().starts_with("=>")).then(|| key.to_owned())
    });
    keys.collect()
}

#[test]
fn shells_and_man_read_what_is_made_for_them() {
    let case = Case::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = case.reiver(&["completions", shell]).expect(0).stdout;
        assert!(script.contains("keep-order"), "{shell}");
    }
    let script = case.reiver(&["completions", "bash"]).expect(0).stdout;
    case.write("completions", script);
    let line = "bash -c '. ./completions; COMP_WORDS=(reiver ru); COMP_CWORD=1; \
                _reiver reiver ru; echo ${COMPREPLY[*]}'";
    assert_eq!(case.through_shell(line).expect(0).stdout, "run\n");
    assert!(
        case.reiver(&["man"])
            .expect(0)
            .stdout
            .contains(".TH reiver 1")
    );
    case.reiver(&["man", "pages/of"]).expect(0);
    assert!(case.read("pages/of/reiver-run.1").contains("keep\\-order"));
    case.write("file", "");
    let refused = case.reiver(&["man", "file"]).expect(2);
    assert!(refused.stderr.contains("file: "), "{}", refused.stderr);
}

#[test]
fn what_was_asked_for_and_has_no_place_is_a_failure() {
    let case = Case::new();
    for words in [
        "--help",
        "--version",
        "help",
        "help FORMAT",
        "run --help",
        "man",
    ] {
        let done = case.through_shell(&format!("exec $REIVER {words} >/dev/full"));
        assert_eq!(done.code, 3, "{words}: {done:?}");
        assert!(
            done.stderr.contains("cannot write the output"),
            "{words}: {done:?}"
        );
    }
}

#[test]
fn who_names_a_file_and_no_command_is_told_how_to_run_it() {
    let case = Case::new();
    case.write("my jobs", "echo 1\n");
    let done = case.reiver(&["my jobs"]).expect(2);
    assert!(
        done.stderr
            .ends_with("\nTo run this file: reiver run 'my jobs'\n"),
        "{}",
        done.stderr
    );
    let done = case.reiver(&["my job"]).expect(2);
    assert!(!done.stderr.contains("To run"), "{}", done.stderr);
}
