//! Needs, by name and by glob, and cycles.

use proptest::prelude::*;
use reiver_batch::job_file::When;
use reiver_batch::plan::{JobIndex, Need, Overrides, Plan};

use crate::maker::*;

#[test]
fn a_need_is_a_name_first_and_else_a_glob_over_all_files() {
    let mut first = Maker::new(0);
    for name in ["f-1", "f-2", "f-*", "f-[x", "g/h"] {
        first.needing(name, &[]);
    }
    let mut second = Maker::new(1);
    second.needing("by-name", &["f-*"]);
    second.needing("f-all", &["f-?", "f-[!1]", "f-[x", "*/*"]);
    let files = vec![("a", first), ("b", second)];
    let plan = plan_files(files, &Overrides::default())
        .0
        .expect("no mistakes");
    assert_eq!(needs(&plan, "by-name"), ["f-*"]);
    assert_eq!(needs(&plan, "f-all"), ["f-[x", "f-1", "f-2", "f-*", "g/h"]);
}

#[test]
fn a_glob_never_matches_its_own_job_but_its_own_name_is_a_cycle() {
    let plan = planned(|m| {
        m.needing("a-1", &[]);
        m.needing("a-all", &["a-*"]);
    });
    assert_eq!(needs(&plan, "a-all"), ["a-1"]);
    one_mistake(|m| m.needing("a", &["a"]), "\"a\"", "`a` needs itself");
    one_mistake(
        |m| m.needing("a", &["a*"]),
        "\"a*\"",
        "`a*` matches no other job",
    );
}

#[test]
fn a_need_that_names_nothing_is_refused_with_the_nearest_name() {
    let mut maker = Maker::new(0);
    maker.needing("fetch", &[]);
    maker.needing("b", &["fecth", "nothing-like-it", "x*"]);
    let (plan, _) = plan_files(vec![("jobs.toml", maker)], &Overrides::default());
    let errors = plan.expect_err("three needs name nothing");
    let said = |at: usize| (errors[at].message.as_str(), errors[at].help.as_deref());
    assert_eq!(
        said(0),
        ("no job is called `fecth`", Some("did you mean `fetch`?"))
    );
    assert_eq!(said(1), ("no job is called `nothing-like-it`", None));
    assert_eq!(said(2), ("`x*` matches no other job", None));
    assert_eq!(errors.len(), 3);
}

#[test]
fn nobody_is_told_to_need_itself() {
    let mut maker = Maker::new(0);
    maker.needing("build", &["biuld"]);
    maker.needing("build-1", &["build-12"]);
    maker.needing("build-123", &["build-13"]);
    let (plan, _) = plan_files(vec![("jobs.toml", maker)], &Overrides::default());
    let errors = plan.expect_err("three needs name nothing");
    let help: Vec<_> = errors.iter().map(|error| error.help.as_deref()).collect();
    let others = ["build-123", "build-1"].map(|name| format!("did you mean `{name}`?"));
    assert_eq!(help, [None, Some(&*others[0]), Some(&*others[1])]);
}

#[test]
fn a_job_needed_under_two_conditions_is_there_twice_and_under_one_once() {
    let plan = planned(|m| {
        m.needing("f-1", &[]);
        let mut keys = m.run("b", "make");
        let conditions = [
            ("f-*", When::Success),
            ("f-1", When::Always),
            ("f-1", When::Success),
        ];
        keys.needs = conditions.map(|(need, when)| m.need(need, when)).to_vec();
        m.job(keys);
    });
    let job = JobIndex(0);
    // What is named comes first; that a glob matches it too, under the same condition, says nothing more.
    let expected = [When::Always, When::Success].map(|when| Need { job, when });
    assert_eq!(Vec::from_iter(plan.needs(JobIndex(1))), expected);
}

#[test]
fn needs_of_cells_follow_their_keys() {
    let plan = planned(|m| {
        for (name, need) in [("a-{x}", None), ("b-{x}", Some("a-{x}"))] {
            let mut keys = m.run(name, "make");
            keys.matrix = m.matrix(&[("x", &["1", "2"])], &[], &[]);
            keys.needs = need
                .map(|need| m.need(need, When::Success))
                .into_iter()
                .collect();
            m.job(keys);
        }
    });
    assert_eq!(
        (needs(&plan, "b-1"), needs(&plan, "b-2")),
        (vec!["a-1".into()], vec!["a-2".into()])
    );
}

#[test]
fn each_cycle_is_refused_once_with_the_names_of_its_loop() {
    let mut maker = Maker::new(0);
    maker.needing("a", &["b"]);
    maker.needing("b", &["c", "start"]);
    maker.needing("c", &["a"]);
    maker.needing("start", &[]);
    maker.needing("x-1", &["x-*"]);
    maker.needing("x-2", &["x-*"]);
    // By way of what lists go on with.
    maker.needing("first", &["s-*", "start"]);
    maker.needing("s-1", &["last"]);
    maker.needing("last", &["s-*", "other"]);
    maker.needing("other", &[]);
    let text = maker.text.clone();
    let (plan, _) = plan_files(vec![("jobs.toml", maker)], &Overrides::default());
    let errors = plan.expect_err("two cycles");
    let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
    let expected = [
        "a cycle: `a` needs `b`, which needs `c`, which needs `a`",
        "a cycle: `x-1` needs `x-2`, which needs `x-1`",
        "a cycle: `s-1` needs `last`, which needs `s-1`",
    ];
    assert_eq!(messages, expected);
    assert_eq!(text[errors[0].span.clone()], *b"\"b\"");
    assert_eq!(errors[0].related.len(), 2);
}

#[test]
fn the_same_cycle_in_every_cell_is_one_mistake() {
    let make = |m: &mut Maker| {
        for (name, need) in [("a-{x}", "b-{x}"), ("b-{x}", "a-{x}")] {
            let mut keys = m.run(name, "make");
            keys.matrix = m.matrix(&[("x", &["1", "2", "3"])], &[], &[]);
            keys.needs = vec![m.need(need, When::Success)];
            m.job(keys);
        }
    };
    one_mistake(
        make,
        "\"b-{x}\"",
        "a cycle: `a-1` needs `b-1`, which needs `a-1`",
    );
}

#[test]
fn many_may_need_many() {
    let shards = 2000;
    let plan = planned(|m| {
        for job in 0..shards {
            m.needing(&format!("shard-{job}"), &[]);
            m.needing(&format!("merge-{job}"), &["shard-*"]);
        }
        m.needing("all", &["*"]);
    });
    assert_eq!(plan.needs(JobIndex(1)).count(), shards);
    assert_eq!(needs(&plan, "all").len(), 2 * shards);
}

proptest! {
    #[test]
    fn needs_are_what_is_written_and_refused_just_where_they_go_in_circles(
        edges in prop::collection::vec((0..JOBS, 0..JOBS), 0..7),
        globs in prop::collection::vec((0..JOBS, 0..GLOBS.len()), 0..4),
        kept in 1..GLOBS.len(),
    ) {
        let mut needed = [[false; JOBS]; JOBS];
        edges.iter().filter(|(from, to)| from != to).for_each(|(from, to)| needed[*from][*to] = true);
        let mut maker = Maker::new(0);
        for (job, direct) in needed.iter_mut().enumerate() {
            let named: Vec<String> = (0..JOBS).filter(|to| direct[*to]).map(name).collect();
            let mut needs: Vec<&str> = named.iter().map(String::as_str).collect();
            for (_, glob) in globs.iter().filter(|(from, _)| *from == job) {
                needs.push(GLOBS[*glob].0);
                // All that match, but for the job itself.
                (0..JOBS).filter(|to| *to != job).for_each(|to| direct[to] |= GLOBS[*glob].1(to));
            }
            maker.needing(&name(job), &needs);
        }
        let mut reach = needed;
        for via in 0..JOBS {
            for from in 0..JOBS {
                for to in 0..JOBS {
                    reach[from][to] |= reach[from][via] && reach[via][to];
                }
            }
        }
        let is_cyclic = (0..JOBS).any(|job| reach[job][job]);
        let (plan, _) = plan_files(vec![("jobs.toml", maker)], &Overrides::default());
        prop_assert_eq!(plan.is_err(), is_cyclic);
        let Ok(plan) = plan else { return Ok(()) };
        let sorted = |plan: &Plan, job: usize| {
            let mut needs = needs(plan, &name(job));
            needs.sort();
            needs
        };
        let names = |of: &dyn Fn(usize) -> bool| -> Vec<String> {
            let mut names: Vec<String> = (0..JOBS).filter(|to| of(*to)).map(name).collect();
            names.sort();
            names
        };
        for (job, direct) in needed.iter().enumerate() {
            prop_assert_eq!(sorted(&plan, job), names(&|to| direct[to]));
        }
        let (glob, is_kept) = GLOBS[kept];
        let filtered = plan.filter(glob).expect("some match");
        let mut is_met = [false; JOBS];
        for (job, direct) in needed.iter().enumerate().filter(|(job, _)| is_kept(*job)) {
            prop_assert_eq!(sorted(&filtered.plan, job), names(&|to| direct[to] && is_kept(to)));
            (0..JOBS).for_each(|to| is_met[to] |= direct[to] && !is_kept(to));
        }
        let mut met: Vec<String> = filtered.taken_as_met.into_iter().map(|job| job.name).collect();
        met.sort();
        prop_assert_eq!(met, names(&|to| is_met[to]));
    }
}

const JOBS: usize = 7;

fn name(job: usize) -> String {
    let letter = |is: bool, letter| if is { letter } else { 'o' };
    format!(
        "{}{}{job}",
        letter(job.is_multiple_of(2), 'e'),
        letter(job < 3, 'l')
    )
}

/// A glob, and which jobs match it.
type Matcher = (&'static str, fn(usize) -> bool);

const GLOBS: [Matcher; 4] = [
    ("*", |_| true),
    ("e*", |job| job.is_multiple_of(2)),
    ("?l*", |job| job < 3),
    ("oo*", |job| !job.is_multiple_of(2) && job >= 3),
];

#[test]
fn jobs_with_a_broken_matrix_are_no_second_mistake_where_they_are_needed() {
    let make = |m: &mut Maker| {
        let mut keys = m.run("fetch-{x}", "make");
        keys.matrix = m.matrix(&[("x", &["1"])], &[], &[&[("y", "1")]]);
        m.job(keys);
        m.needing("solve", &["fetch-1", "fetch-*"]);
        m.needing("other", &["ftech-1"]);
    };
    let messages: Vec<String> = said(make).into_iter().map(|(_, message)| message).collect();
    assert_eq!(
        messages,
        [
            "`exclude` gives `y`, which is no axis",
            "no job is called `ftech-1`"
        ]
    );
}

#[test]
fn a_great_many_long_cycles_are_refused_in_reasonable_space() {
    let jobs = 20_000;
    let mut maker = Maker::new(0);
    for job in 0..jobs {
        maker.needing(
            &format!("j{job}"),
            &[&format!("j{}", (job + 1) % jobs), "j0"],
        );
    }
    let (plan, _) = plan_files(vec![("jobs.toml", maker)], &Overrides::default());
    let errors = plan.expect_err("each job is in a cycle");
    assert!(errors.iter().all(|error| error.message.len() < 1000));
}
