//! What Prometheus is given: read back by the rules of its text format, and compared with the metrics.

#[path = "engine/watchdog.rs"]
mod watchdog;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use reiver::limit::HybridLimiter;
use reiver::{Breaker, CancellationToken, Class, Engine, Priority};
use watchdog::watched;

/// Series with their labels, by what stands before the value.
fn read(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut series = BTreeMap::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.split(' ');
            if matches!(words.next(), Some("TYPE")) {
                family = words.next().unwrap().to_owned();
                let kind = words.next().unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with(&family), "{name} in {family}");
        let before = series.insert(name.to_owned(), value.parse().unwrap());
        assert!(before.is_none(), "{name} stands there twice");
    }
    series
}

#[test]
fn all_that_is_counted_is_given_by_class_and_priority() {
    watched();
    let breaker = Breaker {
        failures: 1.0,
        window: 1,
        open_for: Duration::MAX,
    };
    let engine = Engine::builder()
        .cpu_workers(2)
        .limit_name("none", Arc::new(HybridLimiter::new(1, 1, 0)))
        .breaker("a \"name\"\\\n", breaker)
        .build()
        .unwrap();
    for number in 0..10 {
        let job = engine
            .job()
            .priority(Priority::P0)
            .submit(move |_| assert!(number != 3));
        let _ = job.unwrap().join();
    }
    let token = CancellationToken::new();
    token.cancel();
    let io = engine
        .job()
        .class(Class::Io)
        .cancel_with(&token)
        .submit(|_| ());
    assert!(io.unwrap().join().is_err());
    assert!(engine.job().name("none").submit(|_| ()).is_err());
    let fails = engine.job().name("a \"name\"\\\n");
    fails
        .submit(|ctx| ctx.report_failure())
        .unwrap()
        .join()
        .unwrap();

    let text = engine.prometheus_text();
    let series = read(&text);
    let get = |name: &str| {
        *series
            .get(name)
            .unwrap_or_else(|| panic!("{name} in {text}"))
    };
    let of = |name: &str, more: &str| {
        get(&format!(
            "reiver_{name}{{class=\"cpu\",priority=\"p0\"{more}}}"
        ))
    };
    assert_eq!(of("jobs_submitted_total", ""), 10.0);
    assert_eq!(of("jobs_ended_total", ",how=\"completed\""), 9.0);
    assert_eq!(of("jobs_ended_total", ",how=\"panicked\""), 1.0);
    assert_eq!(of("jobs_running", ""), 0.0);
    let cancelled = "reiver_jobs_ended_total{class=\"io\",priority=\"p1\",how=\"cancelled\"}";
    assert_eq!(get(cancelled), 1.0);
    let refused = "reiver_jobs_rejected_total{class=\"cpu\",priority=\"p1\",why=\"concurrency\"}";
    assert_eq!(get(refused), 1.0);
    let open = "reiver_breaker_state{name=\"a \\\"name\\\"\\\\\\n\",state=\"open\"}";
    assert_eq!(get(open), 1.0);
    assert_eq!(get("reiver_workers"), 2.0);
    let auto = engine.job().class(Class::Auto).submit(|_| ());
    auto.unwrap().join().unwrap();
    let text = engine.prometheus_text();
    let get = |name: &str| read(&text)[name];
    assert_eq!(get("reiver_auto_placed_total{placed=\"hybrid\"}"), 1.0);
    let ended = "reiver_jobs_ended_total{class=\"auto\",priority=\"p1\",how=\"completed\"}";
    assert_eq!(get(ended), 1.0);
    assert_eq!(get("reiver_hybrid_threads"), 1.0);
    assert_eq!(get("reiver_hybrid_blocked"), 0.0);
    assert!(get("reiver_cpu_seconds_total") > 0.0);
    assert!((0.0..=1.5).contains(&get("reiver_utilisation_ratio")));
    assert!(!text.contains("priority=\"p2\""), "there was none");
    let throttled = read(&text).get("reiver_cgroup_throttled_total").copied();
    // What is there to be read goes on growing, if at all.
    match (throttled, engine.metrics().nr_throttled()) {
        (None, None) => {}
        (Some(before), Some(now)) => assert!(before <= now as f64),
        other => panic!("{other:?} in {text}"),
    }

    // Cumulative buckets, the last of which is the count.
    let metrics = engine.metrics();
    let waits = metrics.queue_wait(Class::Cpu, Priority::P0);
    assert_eq!(of("queue_wait_seconds_count", ""), 10.0);
    let bucket = "reiver_queue_wait_seconds_bucket{le=\"+Inf\",class=\"cpu\",priority=\"p0\"}";
    assert_eq!(get(bucket), 10.0);
    let sum = of("queue_wait_seconds_sum", "");
    assert!((sum - waits.sum().as_secs_f64()).abs() < 1e-9);
    let buckets = series.iter().filter(|(name, _)| {
        name.starts_with("reiver_queue_wait_seconds_bucket")
            && name.ends_with("class=\"cpu\",priority=\"p0\"}")
    });
    let end = |name: &str| -> f64 {
        let (_, rest) = name.split_once("le=\"").unwrap();
        rest.split_once('"')
            .unwrap()
            .0
            .parse()
            .unwrap_or(f64::INFINITY)
    };
    let mut buckets: Vec<_> = buckets.map(|(name, &value)| (end(name), value)).collect();
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    assert_eq!(buckets.len(), 14);
    assert!(
        buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1),
        "{buckets:?}"
    );
    for (end, below) in buckets {
        if end > waits.max().as_secs_f64() {
            assert_eq!(below, 10.0);
        }
    }
}

#[test]
fn a_registry_of_ones_own_has_it_as_long_as_the_engine_is_there() {
    watched();
    let engine = Engine::builder().cpu_workers(1).build().unwrap();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(engine.collector()));
    let text = || {
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    };
    assert_eq!(read(&text())["reiver_workers"], 1.0);
    drop(engine);
    assert!(read(&text()).is_empty());
}
