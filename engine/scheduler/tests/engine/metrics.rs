use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reiver::{CancellationToken, Class, Engine, JobCounts, Priority, Topology};

use crate::{Held, engine};

fn ends(jobs: &JobCounts) -> u64 {
    jobs.completed + jobs.panicked + jobs.cancelled + jobs.deadline_exceeded + jobs.shut_down
}

#[test]
fn submitted_is_the_sum_of_all_others_at_any_moment() {
    let engine = engine(2);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let total = engine.metrics().total();
                let sum = ends(&total) + total.queued + total.running;
                assert_eq!(total.submitted, sum, "{total:?}");
                assert!(total.submitted <= 20_000, "{total:?}");
            }
        });
        let mut handles = Vec::new();
        for number in 0..20_000_u32 {
            let token = CancellationToken::new();
            let job = engine
                .job()
                .class([Class::Cpu, Class::Io][usize::from(number % 10 == 0)])
                .priority([Priority::P0, Priority::P1, Priority::P2][number as usize % 3])
                .cancel_with(&token)
                .deadline(Duration::from_secs(u64::from(number % 7 != 0) * 200));
            handles.push(job.submit(move |_| assert!(number % 11 != 0)).unwrap());
            if number % 5 == 0 {
                token.cancel();
            }
        }
        let failed = handles.into_iter().filter_map(|job| job.join().err());
        let failed = failed.count() as u64;
        over.store(true, Ordering::Relaxed);
        watch.join().unwrap();
        let total = engine.metrics().total();
        assert_eq!(total.submitted, 20_000);
        assert_eq!(ends(&total) - total.completed, failed);
        assert_eq!((total.queued, total.running), (0, 0));
    });
}

#[test]
fn whoever_has_joined_a_job_finds_it_counted() {
    let engine = engine(1);
    for number in 1..=200 {
        engine.submit(|_| ()).join().unwrap();
        assert_eq!(engine.metrics().total().completed, number);
    }
    let held = Held::new(&engine);
    let waiting = [engine.submit(|_| ()), engine.submit(|_| ())];
    let total = engine.metrics().total();
    assert_eq!((total.queued, total.running), (2, 1));
    held.let_go();
    for job in waiting {
        job.join().unwrap();
    }
    let jobs = engine.metrics().jobs(Class::Cpu, Priority::P1);
    assert_eq!(jobs.completed, 203);
    assert_eq!(
        engine.metrics().jobs(Class::Io, Priority::P1),
        JobCounts::default()
    );
}

#[test]
fn waits_and_run_times_are_recorded_by_class_and_priority() {
    let engine = engine(1);
    let held = Held::at(&engine, Priority::P0);
    let job = engine.job().priority(Priority::P0);
    let job = job.submit(|_| std::thread::sleep(Duration::from_millis(20)));
    std::thread::sleep(Duration::from_millis(30));
    held.let_go();
    job.unwrap().join().unwrap();
    let metrics = engine.metrics();
    let wait = metrics.queue_wait(Class::Cpu, Priority::P0);
    let run = metrics.run_time(Class::Cpu, Priority::P0);
    assert_eq!((wait.count(), run.count()), (2, 2));
    // Within 2 %.
    assert!(wait.max() >= Duration::from_millis(29), "{wait:?}");
    assert!(run.quantile(0.0) >= Duration::from_millis(19), "{run:?}");
    assert_eq!(metrics.run_time(Class::Io, Priority::P0).count(), 0);
    assert_eq!(
        metrics.run_time(Class::Io, Priority::P0).quantile(1.0),
        Duration::ZERO
    );
}

#[test]
fn work_that_others_take_is_counted_by_how_far_it_went() {
    let topology = Topology::synthetic("NUMANode:2 Core:1").unwrap();
    let engine = Engine::builder().topology(topology).build().unwrap();
    let barrier = std::sync::Barrier::new(2);
    for _ in 0..100 {
        engine.join(|| barrier.wait(), || barrier.wait());
    }
    let steals = engine.metrics().steals();
    assert!(steals.remote >= 100, "{steals:?}");
    assert_eq!(
        (steals.same_cache, steals.same_node),
        (0, 0),
        "one worker a node"
    );
}

#[test]
fn a_worker_that_computes_is_used_and_one_that_waits_is_not() {
    let engine = engine(1);
    let before = engine.metrics();
    // By its own CPU time, so that it makes no difference who else runs.
    let job = engine.submit(|ctx| {
        let begun = ctx.engine().metrics().cpu_time();
        while ctx.engine().metrics().cpu_time() - begun < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
    });
    job.join().unwrap();
    let used = engine.metrics();
    let computed = used.cpu_time() - before.cpu_time();
    assert!(computed >= Duration::from_millis(20), "{computed:?}");
    let share = used.utilisation_since(&before);
    let expected = computed.as_secs_f64() / (used.uptime() - before.uptime()).as_secs_f64();
    assert!((share - expected).abs() < 1e-9 && share > 0.0, "{share}");
    assert_eq!(used.utilisation_since(&used), 0.0);

    let held = Held::new(&engine);
    let idle = engine.metrics();
    std::thread::sleep(Duration::from_millis(50));
    let waited = engine.metrics().utilisation_since(&idle);
    held.let_go();
    // It could be taken for busy only if it spun.
    assert!(waited < 0.5, "{waited}");
}

#[test]
fn what_a_histogram_sums_up_is_what_was_measured() {
    let engine = engine(1);
    for _ in 0..10 {
        let job = engine.submit(|_| std::thread::sleep(Duration::from_millis(2)));
        job.join().unwrap();
    }
    let times = engine.metrics().run_time(Class::Cpu, Priority::P1);
    assert!(times.sum() >= Duration::from_millis(20));
    assert!(times.sum() <= times.max() * 10);
}
