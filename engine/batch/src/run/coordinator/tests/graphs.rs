//! Graphs of any shape, whose jobs end in any order: what becomes of them is as a model says, and what starts
//! next as a look at all of them would.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use reiver::NodeId;

use super::*;

/// How a job of a random graph behaves.
#[derive(Debug, Clone)]
struct Wanted {
    /// So many attempts fail; then one succeeds.
    failures: u32,
    retries: u32,
    named: Vec<(usize, When)>,
    /// Needed whole.
    stages: Vec<(usize, When)>,
    is_io: bool,
    cpus: u32,
    priority: u8,
    memory: u64,
    tokens: u32,
    is_pooled: bool,
    numa: &'static str,
}

/// What jobs of one or two CPUs may say; of the last, the nodes have none as large.
const NUMA: [&str; 5] = [
    "",
    "affinity = 'prefer'",
    "affinity = 'require'",
    "affinity = 'require', nodes = [1]",
    "affinity = 'require', nodes = [0, 1]",
];

/// So many jobs are a stage.
const STAGE: usize = 6;

impl Wanted {
    fn needs(&self) -> impl Iterator<Item = (usize, When)> {
        let jobs_of = |stage: usize| STAGE * stage..STAGE * (stage + 1);
        let staged = self.stages.iter();
        let staged =
            staged.flat_map(move |&(stage, when)| jobs_of(stage).map(move |job| (job, when)));
        self.named.iter().copied().chain(staged)
    }
}

fn graph() -> impl Strategy<Value = Vec<Wanted>> {
    let when = prop_oneof![Just(When::Success), Just(When::Failure), Just(When::Always)];
    let needs = |most: usize| {
        let need = (any::<prop::sample::Index>(), when.clone());
        proptest::collection::vec(need, 0..most)
    };
    let needs = (needs(3), needs(2));
    let shared = (0..11_u64, 0..4_u32, any::<bool>(), 0..NUMA.len());
    let job = (
        0..5_u32,
        0..5_u32,
        needs,
        any::<bool>(),
        1..4_u32,
        0..3_u8,
        shared,
    );
    proptest::collection::vec(job, 1..40).prop_map(|jobs| {
        let job = |(number, (failures, retries, needs, is_io, cpus, priority, shared))| {
            let (memory, tokens, is_pooled, numa): (u64, u32, bool, usize) = shared;
            let (named, stages) = needs;
            Wanted {
                failures,
                retries,
                named: some(number, named),
                stages: some(number / STAGE, stages),
                is_io,
                cpus,
                priority,
                memory: memory * 100,
                tokens,
                is_pooled,
                numa: match (cpus, NUMA[numa]) {
                    (3, numa) if !numa.contains("[0, 1]") => "",
                    (_, numa) => numa,
                },
            }
        };
        jobs.into_iter().enumerate().map(job).collect()
    })
}

/// Of so many things those that were chosen, each under one condition.
fn some(of: usize, chosen: Vec<(prop::sample::Index, When)>) -> Vec<(usize, When)> {
    let chosen = chosen.into_iter().filter(|_| of > 0);
    let chosen: BTreeMap<usize, When> = chosen
        .map(|(index, when)| (index.index(of), when))
        .collect();
    chosen.into_iter().collect()
}

fn name(number: usize) -> String {
    format!("s{}-{number}", number / STAGE)
}

fn written(jobs: &[Wanted]) -> String {
    let mut text =
        "[limits]\ncpus = 4\nio = 2\n[pools]\nfew = 2\n[resources]\ntoken = 3\n".to_owned();
    for (number, job) in jobs.iter().enumerate() {
        let need = |(job, when): (String, When)| {
            let when = format!("{when:?}").to_lowercase();
            format!("{{ job = '{job}', when = '{when}' }}")
        };
        let stages = job.stages.iter();
        let stages = stages.map(|&(stage, when)| (format!("s{stage}-*"), when));
        let named = job.named.iter().map(|&(job, when)| (name(job), when));
        let needs: Vec<String> = stages.chain(named).map(need).collect();
        // Of those that are not io some also wait, and take CPU slots all the same, or until they learn.
        let class = match (job.is_io, number % 3) {
            (true, _) => "io",
            (false, 0) => "hybrid",
            (false, 1) => "auto",
            (false, _) => "cpu",
        };
        text += &format!(
            "[[job]]\nname = '{}'\nrun = 'x'\nclass = '{class}'\n{}\
             numa = {{ {} }}\nresources = {{ token = {} }}\n{}{}\
             priority = 'P{}'\nretries = {}\nneeds = [{}]\n",
            name(number),
            // One that states none is not placed.
            match job.cpus {
                1 if job.numa.is_empty() && number % 2 == 0 => String::new(),
                cpus => format!("cpus = {cpus}\n"),
            },
            job.numa,
            job.tokens,
            if job.memory > 0 {
                format!("memory = {}\n", job.memory)
            } else {
                String::new()
            },
            if job.is_pooled { "pool = 'few'\n" } else { "" },
            job.priority,
            job.retries,
            needs.join(", ")
        );
    }
    text
}

/// How every job ends, where nothing ends the run.
fn model(jobs: &[Wanted]) -> Vec<&'static str> {
    let mut ends: Vec<&str> = Vec::new();
    for job in jobs {
        let met = job.needs().all(|(need, when)| match when {
            When::Success => ends[need] == "success",
            When::Failure => ends[need] == "failed",
            When::Always => true,
        });
        ends.push(match (met, job.failures > job.retries) {
            (false, _) => "skipped",
            (true, true) => "failed",
            (true, false) => "success",
        });
    }
    ends
}

/// What is next, found by a look at every head.
fn next_of_all(coordinator: &Coordinator<&Plan>) -> Option<JobIndex> {
    let mut heads = coordinator.heads.in_order();
    let mut kept = Kept::default();
    let mut all = std::iter::from_fn(|| heads.next(|_| true));
    let found = all.find(|&(_, _, queue)| {
        let demand = &coordinator.queues[queue as usize].demand;
        coordinator.stock.look(demand, &mut kept).is_some()
    });
    found.map(|(_, job, _)| job)
}

proptest! {
    #[test]
    fn any_graph_in_any_order_of_ends_is_as_the_model_says(
        jobs in graph(),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 200),
    ) {
        let mut order = order.into_iter().cycle();
        let plan = planned(&written(&jobs));
        let mut coordinator = Coordinator::new(&plan, 1, &[]);
        let now = Instant::now();
        let mut running: Vec<(JobIndex, u32)> = Vec::new();
        let mut ends: HashMap<String, String> = HashMap::new();
        loop {
            loop {
                coordinator.pass_delays(now);
                let expected = next_of_all(&coordinator);
                let next = coordinator.next(now);
                prop_assert_eq!(next.map(|(job, _)| job), expected);
                let Some(started) = next else { break };
                for (need, _) in jobs[started.0.0 as usize].needs() {
                    prop_assert!(ends.contains_key(&name(need)));
                }
                running.push(started);
            }
            let slots = |io: bool| -> u32 {
                let of = if io { Class::Io } else { Class::Cpu };
                let jobs = running.iter().map(|&(job, _)| (job, &jobs[job.0 as usize]));
                let jobs = jobs.filter(|&(job, _)| coordinator.class(job) == of);
                jobs.map(|(_, job)| if io { 1 } else { job.cpus }).sum()
            };
            prop_assert!(slots(false) <= 4 && slots(true) <= 2);
            let now_running = || running.iter().map(|(job, _)| &jobs[job.0 as usize]);
            prop_assert!(now_running().map(|job| job.memory).sum::<u64>() <= 1000);
            prop_assert!(now_running().filter(|job| job.is_pooled).count() <= 2);
            let (mut tokens, mut cpus) = (Vec::new(), Vec::new());
            for (job, _) in &running {
                let wanted = &jobs[job.0 as usize];
                let held = coordinator.held(*job);
                let indices = held.and_then(|held| held.indices().first());
                let indices = indices.map_or(&[][..], |(_, indices)| indices);
                prop_assert_eq!(indices.len(), wanted.tokens as usize);
                tokens.extend_from_slice(indices);
                let Some(placement) = held.and_then(Held::placement) else {
                    prop_assert!(!wanted.numa.contains("require"));
                    continue;
                };
                if wanted.numa.contains("require") {
                    prop_assert_eq!(placement.cpus.len(), wanted.cpus as usize);
                    prop_assert!(placement.node.is_some() || wanted.cpus == 3);
                    prop_assert!(placement.node == Some(NodeId(1)) || !wanted.numa.contains("[1]"));
                }
                cpus.extend(placement.cpus.iter());
            }
            let all = (tokens.len(), cpus.len());
            tokens.sort_unstable();
            tokens.dedup();
            cpus.sort_unstable();
            cpus.dedup();
            prop_assert_eq!(all, (tokens.len(), cpus.len()), "each is one job's");
            prop_assert!(tokens.len() <= 3 && cpus.len() <= 4);
            prop_assert!(!running.is_empty(), "it is stuck");
            let index = order.next().expect("without end").index(running.len());
            let (job, attempt) = running.swap_remove(index);
            let fails = attempt <= jobs[job.0 as usize].failures;
            coordinator.learn(job, &used(true));
            coordinator.ended(job, if fails { FAILED } else { Status::Success }, now);
            for news in told(&mut coordinator) {
                let (name, end) = news.split_once(' ').expect("name and end");
                let end = end.split(' ').next().unwrap_or_default();
                if end != "retried" {
                    prop_assert_eq!(ends.insert(name.to_owned(), end.to_owned()), None);
                }
            }
            if coordinator.is_over() {
                break;
            }
        }
        prop_assert!(running.is_empty());
        for (number, expected) in model(&jobs).into_iter().enumerate() {
            let name = name(number);
            prop_assert_eq!(ends[&name].as_str(), expected, "{}", name);
        }
    }
}
