//! What holds for the run as a whole.

use reiver::Class;
use reiver_batch::plan::{Limits, Overrides};

use crate::maker::*;

#[test]
fn a_job_that_can_never_fit_is_refused_and_io_takes_no_cpus() {
    let class = |class| {
        move |m: &mut Maker| {
            let mut keys = m.run("a", "make");
            keys.cpus = Some(m.number(9));
            keys.class = Some(m.spanned("", class));
            m.job(keys);
        }
    };
    one_mistake(class(Class::Cpu), "9", "9 cpus never fit: the run has 4");
    assert_eq!(planned(class(Class::Io)).len(), 1);
}

#[test]
fn files_that_disagree_about_the_run_are_refused_unless_an_option_settles_it() {
    let file = |id, cpus, max_fails| {
        let mut maker = Maker::new(id);
        maker.file.limits.cpus = Some(maker.number(cpus));
        maker.file.max_fails = Some(maker.number(max_fails));
        maker
    };
    let files = || {
        vec![
            ("a", file(0, 2, 0)),
            ("b", file(1, 3, 1)),
            ("c", file(2, 2, 1)),
        ]
    };
    let errors = plan_files(files(), &Overrides::default())
        .0
        .expect_err("2 and 3");
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].message, "`limits.cpus` is 3 here and 2 in a");
    let overrides = Overrides {
        cpus: Some(7),
        io: Some(8),
        max_fails: Some(0),
        ..Overrides::default()
    };
    let plan = plan_files(files(), &overrides).0.expect("settled");
    assert_eq!(
        (plan.limits(), plan.max_fails()),
        (Limits { cpus: 7, io: 8 }, Some(1))
    );
}

#[test]
fn a_run_is_named_by_its_first_file() {
    let named = |given: &'static str, name: Option<&str>| {
        let mut maker = Maker::new(0);
        maker.file.name = name.map(|name| maker.text(name));
        let files = vec![(given, maker), ("other", Maker::new(1))];
        let plan = plan_files(files, &Overrides::default())
            .0
            .expect("no mistakes");
        assert!(plan.is_empty());
        plan.name_of_run().to_owned()
    };
    assert_eq!(named("a/jobs.toml", Some("nightly")), "nightly");
    assert_eq!(named("a/jobs.toml", None), "jobs.toml");
    assert_eq!(named("-", None), "stdin");
}
