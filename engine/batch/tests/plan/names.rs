//! Names.

use reiver_batch::SourceId;
use reiver_batch::plan::{JobIndex, Overrides};

use crate::maker::*;

#[test]
fn only_matrix_keys_are_known_in_name_and_needs() {
    let plan = planned(|m| {
        m.needing("{cpus}", &[]);
        m.needing("{name}", &["{cpus}"]);
    });
    assert_eq!(needs(&plan, "{name}"), ["{cpus}"]);
}

#[test]
fn two_jobs_of_one_name_are_refused_with_both_places() {
    let mut maker = Maker::new(0);
    for name in ["a", "b", "a"] {
        maker.needing(name, &[]);
    }
    let (plan, _) = plan_files(vec![("jobs.toml", maker)], &Overrides::default());
    let errors = plan.expect_err("two are called a");
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].message, "two jobs are called `a`");
    assert_eq!(errors[0].related.len(), 1);
    assert!(errors[0].related[0].span.end <= errors[0].span.start);
}

#[test]
fn with_several_files_a_name_that_was_left_out_says_its_file() {
    let file = |id, name: &str| {
        let mut maker = Maker::new(id);
        let keys = maker.run(name, "make");
        maker.job(keys);
        maker
    };
    let files = vec![
        ("a/x.toml", file(0, "")),
        ("-", file(1, "")),
        ("y", file(2, "named")),
    ];
    let plan = plan_files(files, &Overrides::default())
        .0
        .expect("no mistakes");
    assert_eq!(names(&plan), ["x.toml:job-1", "-:job-1", "named"]);
    assert_eq!(plan.source_of(JobIndex(1)), SourceId(1));

    let files = vec![
        ("a/x", file(0, "")),
        ("b/x", file(1, "")),
        ("c/y", file(2, "")),
    ];
    let plan = plan_files(files, &Overrides::default())
        .0
        .expect("no mistakes");
    assert_eq!(names(&plan), ["a/x:job-1", "b/x:job-1", "y:job-1"]);

    let files = vec![("a/x", file(0, "")), ("a/x", file(1, ""))];
    let errors = plan_files(files, &Overrides::default())
        .0
        .expect_err("twice");
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].message, "a/x is given twice");
}
