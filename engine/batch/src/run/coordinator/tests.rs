mod graphs;

use reiver::Topology;

use super::*;
use crate::plan::{Machine, Overrides, plan};
use crate::source::{Form, Source, SourceId};

const FAILED: Status = Status::Failed(Reason::Exit);

fn planned(text: &str) -> Plan {
    let source = Source {
        given: "jobs.toml".into(),
        folder: "/".into(),
        is_stream: false,
        form: Form::Toml,
        text: text.into(),
    };
    let (file, found) = crate::read::read(SourceId(0), &source);
    assert!(found.is_empty(), "{found:?}\n{text}");
    let topology = Topology::synthetic("NUMANode:2 Core:2 PU:1").expect("a machine");
    let mut machine = Machine::new(topology, Some(1000));
    (machine.limits.cpus, machine.limits.io) = (2, 3);
    let (plan, found) = plan(
        vec![source.into()],
        vec![file],
        &Overrides::default(),
        &machine,
    );
    plan.unwrap_or_else(|| panic!("{found:?}\n{text}"))
}

/// Starts all that may start; their names.
fn start(coordinator: &mut Coordinator<&Plan>, now: Instant) -> Vec<String> {
    let plan = coordinator.plan;
    std::iter::from_fn(|| coordinator.next(now))
        .map(|(job, _)| plan.name(job).into_owned())
        .collect()
}

fn end(coordinator: &mut Coordinator<&Plan>, name: &str, status: Status, now: Instant) {
    let job = coordinator.plan.find(name).expect("a job of the test");
    coordinator.ended(job, status, now);
}

/// `name end`, in the order in which it was told.
fn told(coordinator: &mut Coordinator<&Plan>) -> Vec<String> {
    let plan = coordinator.plan;
    let news = coordinator.take_news();
    news.into_iter()
        .map(|news| match news {
            News::Retried {
                job,
                attempt,
                delay,
            } => format!("{} retried {attempt} in {delay:?}", plan.name(job)),
            News::Finished(job, Status::Success) => format!("{} success", plan.name(job)),
            News::Finished(job, Status::Failed(_)) => format!("{} failed", plan.name(job)),
            News::Finished(job, Status::Cancelled) => format!("{} cancelled", plan.name(job)),
            News::Skipped(job, because) => {
                format!("{} skipped for {}", plan.name(job), plan.name(because))
            }
        })
        .collect()
}

#[test]
fn slots_that_come_free_are_kept_for_the_job_that_needs_several() {
    let plan = planned(
        "[limits]\ncpus = 3\n[[job]]\nname = 'a'\nrun = 'x'\n[[job]]\nname = 'b'\nrun = 'x'\n\
         [[job]]\nname = 'wide'\nrun = 'x'\ncpus = 3\n[[job]]\nname = 'c'\nrun = 'x'\n\
         [[job]]\nname = 'io'\nrun = 'x'\nclass = 'io'\n[[job]]\nname = 'first'\nrun = 'x'\npriority = 'P0'\nneeds = ['a']",
    );
    let mut coordinator = Coordinator::new(&plan, 1, &[]);
    let now = Instant::now();
    assert_eq!(start(&mut coordinator, now), ["a", "b", "io"]);
    end(&mut coordinator, "a", Status::Success, now);
    // What is more urgent goes before it all the same.
    assert_eq!(start(&mut coordinator, now), ["first"]);
    end(&mut coordinator, "first", Status::Success, now);
    assert!(
        start(&mut coordinator, now).is_empty(),
        "`c` comes after it"
    );
    end(&mut coordinator, "b", Status::Success, now);
    assert_eq!(start(&mut coordinator, now), ["wide"]);
}

#[test]
fn what_succeeded_before_is_over_and_met_and_nothing_is_told_of_it() {
    let plan = planned(
        "[[job]]\nname = 'done'\nrun = 'x'\n[[job]]\nname = 'also'\nrun = 'x'\nneeds = ['done']\n\
         [[job]]\nname = 'left'\nrun = 'x'\nneeds = ['also', 'new']\n[[job]]\nname = 'new'\nrun = 'x'\n\
         [[job]]\nname = 'repair'\nrun = 'x'\nneeds = [{ job = 'done', when = 'failure' }]\n\
         [[job]]\nname = 'after'\nrun = 'x'\nneeds = [{ job = 'repair', when = 'always' }]",
    );
    let mut coordinator = Coordinator::new(&plan, 1, &[true, true, false, false, false, false]);
    let now = Instant::now();
    assert_eq!(told(&mut coordinator), ["repair skipped for done"]);
    assert_eq!(start(&mut coordinator, now), ["new", "after"]);
    end(&mut coordinator, "new", Status::Success, now);
    end(&mut coordinator, "after", Status::Success, now);
    assert_eq!(start(&mut coordinator, now), ["left"]);
    end(&mut coordinator, "left", Status::Success, now);
    assert!(coordinator.is_over());
    let coordinator = Coordinator::new(&plan, 1, &[true; 6]);
    assert!(coordinator.is_over(), "nothing is left");
}

#[test]
fn an_attempt_that_is_withdrawn_never_was_and_its_job_ends_as_if_it_had_waited() {
    let plan = planned(
        "[[job]]\nname = 'first'\nrun = 'x'\n[[job]]\nname = 'after'\nrun = 'x'\nneeds = ['first']\n\
         [[job]]\nname = 'again'\nrun = 'x'\nretries = 1\nclass = 'io'",
    );
    for (stop, ends) in [
        (
            Stop::Cancel,
            ["first cancelled", "after cancelled", "again cancelled"],
        ),
        (
            Stop::Failures,
            ["first cancelled", "after cancelled", "again failed"],
        ),
    ] {
        let mut coordinator = Coordinator::new(&plan, 1, &[]);
        let now = Instant::now();
        assert_eq!(start(&mut coordinator, now), ["first", "again"]);
        end(&mut coordinator, "again", FAILED, now);
        assert_eq!(start(&mut coordinator, now), ["again"]);
        assert_eq!(told(&mut coordinator), ["again retried 1 in 0ns"]);
        coordinator.stop(stop);
        for (name, attempts) in [("first", 0), ("again", 1)] {
            let job = plan.find(name).expect("a job of the test");
            coordinator.withdrawn(job);
            assert_eq!(coordinator.attempt(job), attempts);
        }
        assert_eq!(told(&mut coordinator), ends);
        assert!(coordinator.is_over());
        assert_eq!(
            (coordinator.stock.free_cpus(), coordinator.stock.free_io()),
            (2, 3)
        );
    }
}

#[test]
fn what_waits_for_a_pool_lets_others_pass_and_slots_are_not_kept_for_it() {
    let plan = planned(
        "[pools]\ndb = 1\n[[job]]\nname = 'a'\nrun = 'x'\npool = 'db'\n\
         [[job]]\nname = 'b'\nrun = 'x'\npool = 'db'\n[[job]]\nname = 'c'\nrun = 'x'\n\
         [[job]]\nname = 'io'\nrun = 'x'\nclass = 'io'\npool = 'db'",
    );
    let mut coordinator = Coordinator::new(&plan, 1, &[]);
    let now = Instant::now();
    assert_eq!(start(&mut coordinator, now), ["a", "c"]);
    end(&mut coordinator, "a", Status::Success, now);
    assert_eq!(start(&mut coordinator, now), ["b"]);
    end(&mut coordinator, "b", Status::Success, now);
    assert_eq!(start(&mut coordinator, now), ["io"]);
}

#[test]
fn what_comes_free_is_kept_for_the_job_that_needs_much_of_it() {
    let plan = planned(
        "[resources]\ngpu = 3\n[defaults]\nclass = 'io'\n\
         [[job]]\nname = 'a'\nrun = 'x'\nmemory = 600\nresources = { gpu = 2 }\n\
         [[job]]\nname = 'large'\nrun = 'x'\nmemory = 700\n\
         [[job]]\nname = 'all'\nrun = 'x'\nresources = { gpu = 3 }\n\
         [[job]]\nname = 'b'\nrun = 'x'\nmemory = 300\n\
         [[job]]\nname = 'c'\nrun = 'x'\nresources = { gpu = 1 }\n\
         [[job]]\nname = 'free'\nrun = 'x'",
    );
    let mut coordinator = Coordinator::new(&plan, 1, &[]);
    let now = Instant::now();
    // 400 bytes and one gpu are left, and kept.
    assert_eq!(start(&mut coordinator, now), ["a", "free"]);
    let job = plan.find("a").expect("it is there");
    let held = coordinator.held(job).expect("it holds something");
    assert_eq!(held.indices(), [(0, vec![0, 1])]);
    end(&mut coordinator, "a", Status::Success, now);
    assert_eq!(start(&mut coordinator, now), ["large", "all"]);
    end(&mut coordinator, "large", Status::Success, now);
    assert_eq!(start(&mut coordinator, now), ["b"]);
    end(&mut coordinator, "all", Status::Success, now);
    assert_eq!(start(&mut coordinator, now), ["c"]);
}

#[test]
fn a_deadline_ends_whatever_waits_and_nothing_is_tried_again_after_it() {
    let plan = planned(
        "[defaults]\ndeadline = '9s'\nretries = { count = 5, delay = '1s' }\n[limits]\ncpus = 2\n\
         [[job]]\nname = 'runs'\nrun = 'x'\n[[job]]\nname = 'fails'\nrun = 'x'\n\
         [[job]]\nname = 'ready'\nrun = 'x'\n[[job]]\nname = 'needs'\nrun = 'x'\nneeds = ['runs']\n\
         [[job]]\nname = 'repairs'\nrun = 'x'\ndeadline = '1h'\n\
         needs = [{ job = 'needs', when = 'failure' }]\n",
    );
    let mut coordinator = Coordinator::new(&plan, 1, &[]);
    let now = Instant::now();
    let seconds = Duration::from_secs;
    assert_eq!(start(&mut coordinator, now), ["runs", "fails"]);
    assert_eq!(coordinator.next_deadline(), Some(seconds(9)));
    coordinator.pass_deadlines(seconds(8));
    end(&mut coordinator, "fails", FAILED, now);
    assert_eq!(told(&mut coordinator), ["fails retried 1 in 1s"]);
    coordinator.pass_deadlines(seconds(9));
    let mut failed = told(&mut coordinator);
    failed.sort();
    assert_eq!(failed, ["fails failed", "needs failed", "ready failed"]);
    assert_eq!(coordinator.next_deadline(), Some(seconds(3600)));
    assert_eq!(start(&mut coordinator, now), ["repairs"]);
    end(&mut coordinator, "runs", FAILED, now);
    assert_eq!(
        told(&mut coordinator),
        ["runs failed"],
        "too late to be tried again"
    );
}

#[test]
fn waits_grow_as_asked_and_hold_no_slot() {
    let plan = planned(
        "[limits]\ncpus = 1\n[[job]]\nname = 'a'\nrun = 'x'\n\
         retries = { count = 4, delay = '1s', backoff = 'exponential', max-delay = '3s' }\n\
         [[job]]\nname = 'b'\nrun = 'x'",
    );
    let mut coordinator = Coordinator::new(&plan, 1, &[]);
    let mut now = Instant::now();
    assert_eq!(start(&mut coordinator, now), ["a"]);
    for (attempt, delay) in [(1, 1), (2, 2), (3, 3), (4, 3)] {
        end(&mut coordinator, "a", FAILED, now);
        assert_eq!(
            told(&mut coordinator),
            [format!("a retried {attempt} in {delay}s")]
        );
        let others: &[&str] = if attempt == 1 { &["b"] } else { &[] };
        assert_eq!(start(&mut coordinator, now), others);
        if attempt == 1 {
            end(&mut coordinator, "b", Status::Success, now);
            assert_eq!(told(&mut coordinator), ["b success"]);
        }
        let almost = now + Duration::from_secs(delay) - Duration::from_nanos(1);
        assert!(start(&mut coordinator, almost).is_empty());
        now = coordinator.next_delay().expect("it waits");
        // What has come is not waited for, be it that nothing is started just then.
        coordinator.pass_delays(now);
        assert_eq!(coordinator.next_delay(), None);
        assert_eq!(start(&mut coordinator, now), ["a"]);
    }
    end(&mut coordinator, "a", FAILED, now);
    assert_eq!(told(&mut coordinator), ["a failed"]);
    assert!(coordinator.is_over());
}

#[test]
fn a_random_wait_is_a_part_of_the_whole() {
    let plan = planned(
        "[[job]]\nname = 'a'\nrun = 'x'\nretries = { count = 2000, delay = '1s', jitter = true }",
    );
    let mut coordinator = Coordinator::new(&plan, 7, &[]);
    let mut now = Instant::now();
    let mut waits = Vec::new();
    for _ in 0..2000 {
        assert_eq!(start(&mut coordinator, now), ["a"]);
        end(&mut coordinator, "a", FAILED, now);
        let at = coordinator.next_delay().expect("it waits");
        waits.push((at - now).as_secs_f64());
        now = at;
    }
    assert!(waits.iter().all(|wait| (0.0..=1.0).contains(wait)));
    let mean = waits.iter().sum::<f64>() / 2000.0;
    assert!((0.45..0.55).contains(&mean), "{mean}");
}

#[test]
fn a_wait_that_no_clock_holds_is_without_end() {
    let plan = planned(
        "[[job]]\nname = 'a'\nrun = 'x'\n\
         retries = { count = 99, delay = '500000000000y', backoff = 'exponential' }",
    );
    let mut coordinator = Coordinator::new(&plan, 1, &[]);
    let now = Instant::now();
    start(&mut coordinator, now);
    end(&mut coordinator, "a", FAILED, now);
    assert_eq!(coordinator.next_delay(), None);
    coordinator.stop(Stop::Cancel);
    told(&mut coordinator);
    assert!(coordinator.is_over());
}

#[test]
fn at_max_fails_each_ends_as_the_page_says() {
    let plan = planned(
        "max-fails = 1\n[limits]\ncpus = 3\n[[job]]\nname = 'runs'\nrun = 'x'\n\
         [[job]]\nname = 'waits'\nrun = 'x'\nretries = { count = 3, delay = '1h' }\n\
         [[job]]\nname = 'fails'\nrun = 'x'\n[[job]]\nname = 'ready'\nrun = 'x'\n\
         [[job]]\nname = 'hangs'\nrun = 'x'\nneeds = ['fails']\n\
         [[job]]\nname = 'repairs'\nrun = 'x'\nneeds = [{ job = 'fails', when = 'failure' }]\n\
         [[job]]\nname = 'after'\nrun = 'x'\nneeds = ['runs']\n\
         [[job]]\nname = 'cleans'\nrun = 'x'\nneeds = [{ job = 'ready', when = 'always' }]",
    );
    let mut coordinator = Coordinator::new(&plan, 1, &[]);
    let now = Instant::now();
    assert_eq!(start(&mut coordinator, now), ["runs", "waits", "fails"]);
    end(&mut coordinator, "waits", FAILED, now);
    told(&mut coordinator);
    end(&mut coordinator, "fails", FAILED, now);
    let mut first = told(&mut coordinator);
    first.sort();
    assert_eq!(
        first,
        [
            "cleans cancelled",
            "fails failed",
            "hangs skipped for fails",
            "ready cancelled",
            "repairs cancelled",
            "waits failed",
        ]
    );
    assert!(start(&mut coordinator, now).is_empty());
    end(&mut coordinator, "runs", Status::Success, now);
    assert_eq!(told(&mut coordinator), ["runs success", "after cancelled"]);
    assert!(coordinator.is_over());
}

#[test]
fn a_cancel_reaches_everybody_who_hangs_on_it() {
    let plan = planned(
        "[[job]]\nname = 'runs'\nrun = 'x'\nretries = 5\n\
         [[job]]\nname = 'always'\nrun = 'x'\nneeds = [{ job = 'runs', when = 'always' }]\n\
         [[job]]\nname = 'more'\nrun = 'x'\nneeds = ['always']",
    );
    let mut coordinator = Coordinator::new(&plan, 1, &[]);
    let now = Instant::now();
    start(&mut coordinator, now);
    coordinator.stop(Stop::Cancel);
    end(&mut coordinator, "runs", Status::Cancelled, now);
    assert_eq!(
        told(&mut coordinator),
        ["runs cancelled", "always cancelled", "more cancelled"]
    );
    assert!(coordinator.is_over());
}

/// What an attempt did that waited, or computed, for a second.
fn used(waited: bool) -> Usage {
    let second = Duration::from_secs(1);
    Usage {
        cpu: if waited { Duration::ZERO } else { second },
        queued: Some(Duration::ZERO),
        wall: second,
    }
}

/// Ends a job that has learnt this.
fn end_having(coordinator: &mut Coordinator<&Plan>, name: &str, waited: bool, now: Instant) {
    let job = coordinator.plan.find(name).expect("a job of the test");
    coordinator.learn(job, &used(waited));
    coordinator.ended(job, Status::Success, now);
}

#[test]
fn jobs_that_turn_out_to_wait_go_to_io_slots_in_their_order() {
    let plan = planned(
        "[limits]\ncpus = 2\nio = 2\n\
         [[job]]\nname = 'w{n}'\nmatrix = { n = [1, 2, 3, 4, 5, 6, 7, 8] }\nrun = 'x'\nclass = 'auto'\n\
         [[job]]\nname = 'c{n}'\nmatrix = { n = [1, 2, 3] }\nrun = 'x'\n\
         [[job]]\nname = 'i'\nrun = 'x'\nclass = 'io'\n",
    );
    let mut coordinator = Coordinator::new(&plan, 1, &[]);
    let now = Instant::now();
    assert_eq!(start(&mut coordinator, now), ["w1", "w2", "i"]);
    end_having(&mut coordinator, "w1", true, now);
    end_having(&mut coordinator, "w2", true, now);
    assert_eq!(
        start(&mut coordinator, now),
        ["w3", "w4"],
        "two are too few"
    );
    end_having(&mut coordinator, "w3", true, now);
    // One io slot is free, and one cpu slot, which is for those that compute now.
    assert_eq!(start(&mut coordinator, now), ["w5", "c1"]);
    let class = |coordinator: &Coordinator<&Plan>, name| {
        coordinator.class(plan.find(name).expect("a job of the test"))
    };
    assert_eq!(
        class(&coordinator, "w4"),
        Class::Cpu,
        "it keeps what it has"
    );
    assert_eq!(class(&coordinator, "w5"), Class::Io);
    end_having(&mut coordinator, "w4", true, now);
    assert_eq!(
        start(&mut coordinator, now),
        ["c2"],
        "w4 gave a cpu slot back"
    );
    end(&mut coordinator, "i", Status::Success, now);
    assert_eq!(start(&mut coordinator, now), ["w6"]);
    // There is no way back.
    for name in ["w5", "w6"] {
        end_having(&mut coordinator, name, false, now);
    }
    assert_eq!(start(&mut coordinator, now), ["w7", "w8"]);
    assert_eq!(class(&coordinator, "w8"), Class::Io);
    for name in ["w7", "w8", "c1", "c2"] {
        end(&mut coordinator, name, Status::Success, now);
    }
    assert_eq!(start(&mut coordinator, now), ["c3"]);
    end(&mut coordinator, "c3", Status::Success, now);
    assert!(coordinator.is_over());
    assert_eq!(
        (coordinator.free_cpus(), coordinator.stock.free_io()),
        (2, 2)
    );
}

#[test]
fn only_jobs_of_their_own_name_learn_from_each_other() {
    let plan = planned(
        "[limits]\ncpus = 1\nio = 9\n[defaults]\nclass = 'auto'\n\
         [[job]]\nname = 'a{n}'\nmatrix = { n = [1, 2, 3, 4, 5] }\nrun = 'x'\n\
         [[job]]\nname = 'b{n}'\nmatrix = { n = [1, 2] }\nrun = 'x'\n\
         [[job]]\nname = 'urgent'\nrun = 'x'\npriority = 'P0'\nneeds = ['b1']\n",
    );
    let mut coordinator = Coordinator::new(&plan, 1, &[]);
    let now = Instant::now();
    for name in ["a1", "a2", "a3"] {
        assert_eq!(start(&mut coordinator, now), [name]);
        end_having(&mut coordinator, name, true, now);
    }
    assert_eq!(start(&mut coordinator, now), ["a4", "a5", "b1"]);
    end_having(&mut coordinator, "b1", false, now);
    assert_eq!(start(&mut coordinator, now), ["urgent"]);
    end_having(&mut coordinator, "urgent", true, now);
    assert_eq!(start(&mut coordinator, now), ["b2"]);
}

#[test]
fn what_has_gone_to_another_queue_is_ended_once() {
    let text = |retries| {
        format!(
            "[limits]\ncpus = 3\nio = 1\n[[job]]\nname = 'w{{n}}'\nmatrix = {{ n = [1, 2, 3, 4, 5, 6] }}\n\
             run = 'x'\nclass = 'auto'\nretries = {retries}\ndeadline = '1h'\n"
        )
    };
    let moved = |plan: &'static Plan| {
        let mut coordinator = Coordinator::new(plan, 1, &[]);
        let now = Instant::now();
        assert_eq!(start(&mut coordinator, now), ["w1", "w2", "w3"]);
        for name in ["w1", "w2", "w3"] {
            end_having(&mut coordinator, name, true, now);
        }
        assert_eq!(start(&mut coordinator, now), ["w4"]);
        told(&mut coordinator);
        (coordinator, now)
    };
    let plan = Box::leak(Box::new(planned(&text(0))));
    let (mut coordinator, _) = moved(plan);
    coordinator.stop(Stop::Cancel);
    assert_eq!(told(&mut coordinator), ["w5 cancelled", "w6 cancelled"]);
    let (mut coordinator, now) = moved(plan);
    coordinator.pass_deadlines(Duration::from_secs(3600));
    assert_eq!(told(&mut coordinator), ["w5 failed", "w6 failed"]);
    end_having(&mut coordinator, "w4", true, now);
    assert!(start(&mut coordinator, now).is_empty() && coordinator.is_over());
    // One that is tried again takes what its name has come to.
    let plan = Box::leak(Box::new(planned(&text(1))));
    let mut coordinator = Coordinator::new(&*plan, 1, &[]);
    let now = Instant::now();
    start(&mut coordinator, now);
    for name in ["w1", "w2", "w3"] {
        let job = plan.find(name).expect("a job of the test");
        coordinator.learn(job, &used(true));
        coordinator.ended(job, FAILED, now);
    }
    assert_eq!(
        start(&mut coordinator, now),
        ["w1"],
        "one io slot, in file order"
    );
}

#[test]
fn jobs_on_one_list_start_and_are_skipped_together() {
    let plan = planned(
        "[limits]\ncpus = 9\n[[job]]\nname = 'a{n}'\nmatrix = { n = [1, 2] }\nrun = 'x'\n\
         [[job]]\nname = 'b{n}'\nmatrix = { n = [1, 2] }\nrun = 'x'\nneeds = ['a*']\n\
         [[job]]\nname = 'late'\nrun = 'x'\nneeds = ['a*']\ndeadline = '1s'\n\
         [[job]]\nname = 'twice'\nrun = 'x'\nneeds = ['a1', { job = 'a1', when = 'always' }]\n",
    );
    let now = Instant::now();
    for (last, started, told_of_all) in [
        (
            Status::Success,
            &["b1", "b2"][..],
            &["late failed", "a1 success", "a2 success"][..],
        ),
        (
            FAILED,
            &[],
            &[
                "late failed",
                "a1 success",
                "a2 failed",
                "b1 skipped for a2",
                "b2 skipped for a2",
            ],
        ),
    ] {
        let mut coordinator = Coordinator::new(&plan, 1, &[]);
        assert_eq!(start(&mut coordinator, now), ["a1", "a2"]);
        // It leaves the list alone that it was on.
        coordinator.pass_deadlines(Duration::from_secs(2));
        end(&mut coordinator, "a1", Status::Success, now);
        assert_eq!(start(&mut coordinator, now), ["twice"]);
        end(&mut coordinator, "a2", last, now);
        assert_eq!(start(&mut coordinator, now), started);
        assert_eq!(told(&mut coordinator), told_of_all);
    }
}

#[test]
fn what_a_filter_takes_away_is_not_waited_for() {
    let text = "[limits]\ncpus = 9\n[[job]]\nname = 'a{n}'\nmatrix = { n = [1, 2] }\nrun = 'x'\n\
         [[job]]\nname = 'b'\nrun = 'x'\nneeds = ['a*']\n\
         [[job]]\nname = 'c'\nrun = 'x'\nneeds = ['a*', 'b']\n";
    let now = Instant::now();
    let filters: [(&str, &[&[&str]]); 4] = [
        ("*", &[&["a1", "a2"], &["b"], &["c"]]),
        ("c", &[&["c"]]),
        ("[bc]", &[&["b"], &["c"]]),
        ("[ac]*", &[&["a1", "a2"], &["c"]]),
    ];
    for (filter, expected) in filters {
        let plan = planned(text).filter(filter).expect("some match").plan;
        let mut coordinator = Coordinator::new(&plan, 1, &[]);
        for expected in expected {
            let started = start(&mut coordinator, now);
            assert_eq!(started, *expected, "{filter}");
            for name in started {
                end(&mut coordinator, &name, Status::Success, now);
            }
        }
        assert!(coordinator.is_over());
    }
}
