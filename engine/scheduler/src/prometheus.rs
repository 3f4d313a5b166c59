//! The metrics of an engine for Prometheus (crate feature `metrics`).
//!
//! [`Engine::prometheus_text`] gives all of it as text; [`Engine::collector`] gives a [`Collector`] for
//! a registry that has more than this.

use std::fmt;
use std::sync::Weak;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::engine::Engine;
use crate::metrics::{CLASSES, Metrics};
use crate::queues::PRIORITIES;
use crate::shared::Shared;
use crate::{BreakerState, Class, Histogram, JobCounts, Priority, Rejections};

/// Upper ends of the buckets of histograms: powers of four nanoseconds, from 1 µs to 17 s. Those of a
/// [`Histogram`] end just below them, so nothing is rounded.
const BUCKETS: [u32; 13] = [10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34];

/// Gives the metrics of an engine at each scrape, and nothing once the engine is gone.
#[derive(Debug, Clone)]
pub struct EngineCollector {
    engine: Weak<Shared>,
}

impl Engine {
    /// The metrics as Prometheus takes them, in the text format of OpenMetrics. Their names begin with
    /// `reiver_`; times are seconds.
    ///
    /// | metric | labels | |
    /// | --- | --- | --- |
    /// | `jobs_submitted_total`, `jobs_ended_total` | class, priority; how | jobs taken, jobs ended: completed, panicked, cancelled, deadline_exceeded, shut_down |
    /// | `jobs_queued`, `jobs_running` | class, priority | now |
    /// | `jobs_rejected_total` | class, priority, why | queue_full, shut_down, unknown_node, rate, concurrency, breaker_open, no_runtime |
    /// | `queue_wait_seconds`, `run_time_seconds` | class, priority | histograms |
    /// | `breaker_state` | name, state | 1 for the state it is in, 0 for the others |
    /// | `breaker_opened_total` | name | |
    /// | `utilisation_ratio` | | see [`Metrics::utilisation`] |
    /// | `cpu_seconds_total` | | see [`Metrics::cpu_time`] |
    /// | `cgroup_throttled_total` | | see [`Metrics::nr_throttled`]; left out where there is no quota |
    /// | `hybrid_threads`, `hybrid_blocked` | | see [`Metrics::hybrid_threads`] |
    /// | `auto_placed_total` | placed | jobs of class Auto: cpu, io, hybrid |
    /// | `steals_total` | distance | |
    /// | `workers`, `wakes_total`, `parks_total`, `promotions_total` | | |
    ///
    /// Classes and priorities that have had no job are left out.
    pub fn prometheus_text(&self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.collector()));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }

    /// The same, for a registry of one's own.
    pub fn collector(&self) -> EngineCollector {
        EngineCollector {
            engine: std::sync::Arc::downgrade(self.shared()),
        }
    }
}

impl Collector for EngineCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(shared) = self.engine.upgrade() else {
            return Ok(());
        };
        let metrics = Engine::borrowed(shared).metrics();
        jobs(&metrics, &mut encoder)?;
        times(&metrics, &mut encoder)?;
        breakers(&metrics, &mut encoder)?;
        elastic(&metrics, &mut encoder)?;
        workers(&metrics, &mut encoder)
    }
}

fn class_name(class: Class) -> &'static str {
    match class {
        Class::Cpu => "cpu",
        Class::Io => "io",
        Class::Hybrid => "hybrid",
        Class::Auto => "auto",
    }
}

fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::P0 => "p0",
        Priority::P1 => "p1",
        Priority::P2 => "p2",
    }
}

/// The kinds of jobs of which there were any.
fn kinds(metrics: &Metrics) -> impl Iterator<Item = (Class, Priority)> {
    let all = CLASSES
        .into_iter()
        .flat_map(|class| PRIORITIES.map(|priority| (class, priority)));
    all.filter(|&(class, priority)| {
        let jobs = metrics.jobs(class, priority);
        jobs.submitted + jobs.rejected > 0
    })
}

fn labels((class, priority): (Class, Priority)) -> [(&'static str, &'static str); 2] {
    [
        ("class", class_name(class)),
        ("priority", priority_name(priority)),
    ]
}

fn counter(value: u64, mut encoder: MetricEncoder<'_>) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn jobs(metrics: &Metrics, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "reiver_jobs_submitted",
        "Jobs that were taken",
        None,
        MetricType::Counter,
    )?;
    for kind in kinds(metrics) {
        let submitted = metrics.jobs(kind.0, kind.1).submitted;
        counter(submitted, family.encode_family(&labels(kind))?)?;
    }
    let mut family = encoder.encode_descriptor(
        "reiver_jobs_ended",
        "Jobs that have ended, by how they did",
        None,
        MetricType::Counter,
    )?;
    for kind in kinds(metrics) {
        for (how, jobs) in ends(&metrics.jobs(kind.0, kind.1)) {
            let [class, priority] = labels(kind);
            let labels = [class, priority, ("how", how)];
            counter(jobs, family.encode_family(&labels)?)?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "reiver_jobs_rejected",
        "Jobs that were not taken, by the reason",
        None,
        MetricType::Counter,
    )?;
    for kind in kinds(metrics) {
        for (why, jobs) in reasons(&metrics.rejections(kind.0, kind.1)) {
            let [class, priority] = labels(kind);
            let labels = [class, priority, ("why", why)];
            counter(jobs, family.encode_family(&labels)?)?;
        }
    }
    type Number = fn(&JobCounts) -> u64;
    let now: [(&str, &str, Number); 2] = [
        ("reiver_jobs_queued", "Jobs that wait", |jobs| jobs.queued),
        ("reiver_jobs_running", "Jobs that run", |jobs| jobs.running),
    ];
    for (name, help, number) in now {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for kind in kinds(metrics) {
            let number = number(&metrics.jobs(kind.0, kind.1));
            family.encode_family(&labels(kind))?.encode_gauge(&number)?;
        }
    }
    Ok(())
}

fn ends(jobs: &JobCounts) -> [(&'static str, u64); 5] {
    [
        ("completed", jobs.completed),
        ("panicked", jobs.panicked),
        ("cancelled", jobs.cancelled),
        ("deadline_exceeded", jobs.deadline_exceeded),
        ("shut_down", jobs.shut_down),
    ]
}

fn reasons(rejections: &Rejections) -> [(&'static str, u64); 7] {
    [
        ("queue_full", rejections.queue_full),
        ("shut_down", rejections.shut_down),
        ("unknown_node", rejections.unknown_node),
        ("rate", rejections.rate),
        ("concurrency", rejections.concurrency),
        ("breaker_open", rejections.breaker_open),
        ("no_runtime", rejections.no_runtime),
    ]
}

fn times(metrics: &Metrics, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    type Times = fn(&Metrics, Class, Priority) -> Histogram;
    let histograms: [(&str, &str, Times); 2] = [
        (
            "reiver_queue_wait",
            "From submission to start",
            Metrics::queue_wait,
        ),
        ("reiver_run_time", "From start to end", Metrics::run_time),
    ];
    for (name, help, times) in histograms {
        let unit = Some(&Unit::Seconds);
        let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        for kind in kinds(metrics) {
            let times = times(metrics, kind.0, kind.1);
            let buckets = buckets(&times);
            family
                .encode_family(&labels(kind))?
                .encode_histogram::<NoLabelSet>(
                    times.sum().as_secs_f64(),
                    times.count(),
                    &buckets,
                    None,
                )?;
        }
    }
    Ok(())
}

/// Upper ends in seconds, with what lies between each and the one before.
fn buckets(times: &Histogram) -> Vec<(f64, u64)> {
    let mut below = 0;
    let bounded = BUCKETS.into_iter().map(|power| {
        let end = Duration::from_nanos(1 << power);
        (end.as_secs_f64(), times.count_below(power))
    });
    let all = bounded.chain([(f64::INFINITY, times.count())]);
    all.map(|(end, up_to)| (end, up_to - std::mem::replace(&mut below, up_to)))
        .collect()
}

fn breakers(metrics: &Metrics, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    if metrics.breakers().is_empty() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(
        "reiver_breaker_state",
        "1 for the state that the breaker of a name is in",
        None,
        MetricType::Gauge,
    )?;
    let states = [
        ("closed", BreakerState::Closed),
        ("open", BreakerState::Open),
        ("half_open", BreakerState::HalfOpen),
    ];
    for breaker in metrics.breakers() {
        for (name, state) in states {
            let labels = [("name", breaker.name()), ("state", name)];
            let is_in_it = u64::from(breaker.state() == state);
            family.encode_family(&labels)?.encode_gauge(&is_in_it)?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "reiver_breaker_opened",
        "How often the breaker of a name has opened",
        None,
        MetricType::Counter,
    )?;
    for breaker in metrics.breakers() {
        let labels = [("name", breaker.name())];
        counter(breaker.opened(), family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// What classes Hybrid and Auto have beside their jobs.
fn elastic(metrics: &Metrics, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let hybrid = metrics.hybrid_threads();
    let gauges = [
        (
            "reiver_hybrid_threads",
            "Threads for jobs of class Hybrid",
            hybrid.threads,
        ),
        (
            "reiver_hybrid_blocked",
            "Threads of class Hybrid that are blocked in a job",
            hybrid.blocked,
        ),
    ];
    for (name, help, number) in gauges {
        encoder
            .encode_descriptor(name, help, None, MetricType::Gauge)?
            .encode_gauge(&(number as u64))?;
    }
    let placed = metrics.placed();
    let mut family = encoder.encode_descriptor(
        "reiver_auto_placed",
        "Jobs of class Auto, by the class that they were placed in",
        None,
        MetricType::Counter,
    )?;
    let classes = [
        (Class::Cpu, placed.cpu),
        (Class::Io, placed.io),
        (Class::Hybrid, placed.hybrid),
    ];
    for (class, number) in classes {
        let labels = [("placed", class_name(class))];
        counter(number, family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn workers(metrics: &Metrics, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let steals = metrics.steals();
    let mut family = encoder.encode_descriptor(
        "reiver_steals",
        "How often a worker took work that was not its own, by how far that was",
        None,
        MetricType::Counter,
    )?;
    let distances = [
        ("same_cache", steals.same_cache),
        ("same_node", steals.same_node),
        ("remote", steals.remote),
    ];
    for (distance, number) in distances {
        let labels = [("distance", distance)];
        counter(number, family.encode_family(&labels)?)?;
    }
    let counts = [
        (
            "reiver_wakes",
            "How often a sleeping worker was woken",
            metrics.wakes(),
        ),
        (
            "reiver_parks",
            "How often a worker went to sleep",
            metrics.parks(),
        ),
        (
            "reiver_promotions",
            "How often a fork was made stealable",
            metrics.promotions(),
        ),
    ];
    for (name, help, number) in counts {
        counter(
            number,
            encoder.encode_descriptor(name, help, None, MetricType::Counter)?,
        )?;
    }
    let unit = Some(&Unit::Seconds);
    let help = "CPU time of the threads that compute";
    encoder
        .encode_descriptor("reiver_cpu", help, unit, MetricType::Counter)?
        .encode_counter::<NoLabelSet, _, u64>(&metrics.cpu_time().as_secs_f64(), None)?;
    if let Some(throttled) = metrics.nr_throttled() {
        let help = "How often the kernel stopped the cgroup for its CPU quota";
        let name = "reiver_cgroup_throttled";
        counter(
            throttled,
            encoder.encode_descriptor(name, help, None, MetricType::Counter)?,
        )?;
    }
    let help = "Share of the workers' CPUs that was used since the engine was built";
    encoder
        .encode_descriptor("reiver_utilisation_ratio", help, None, MetricType::Gauge)?
        .encode_gauge(&metrics.utilisation())?;
    encoder
        .encode_descriptor("reiver_workers", "CPU workers", None, MetricType::Gauge)?
        .encode_gauge(&(metrics.workers() as u64))
}
