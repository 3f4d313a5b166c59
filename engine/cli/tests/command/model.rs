//! A random graph of jobs, held against a model that is short enough to be right by looking at it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::case::Case;

const JOBS: usize = 2_000;

struct Job {
    fails: bool,
    needs: Vec<(usize, &'static str)>,
}

/// Numbers that a seed gives: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap()
    }
}

fn graph(seed: u64) -> Vec<Job> {
    let mut random = Random(seed);
    (0..JOBS)
        .map(|job| {
            let count = random.below(4).min(job);
            let mut needs: Vec<(usize, &str)> = Vec::new();
            for _ in 0..count {
                let need = random.below(job);
                if needs.iter().all(|&(known, _)| known != need) {
                    let when =
                        ["success", "success", "success", "failure", "always"][random.below(5)];
                    needs.push((need, when));
                }
            }
            Job {
                fails: random.below(6) == 0,
                needs,
            }
        })
        .collect()
}

/// How every job ends.
fn model(jobs: &[Job]) -> Vec<&'static str> {
    let mut ends: Vec<&str> = Vec::new();
    for job in jobs {
        let met = job.needs.iter().all(|&(need, when)| match when {
            "success" => ends[need] == "success",
            "failure" => ends[need] == "failed",
            _ => true,
        });
        ends.push(if !met {
            "skipped"
        } else if job.fails {
            "failed"
        } else {
            "success"
        });
    }
    ends
}

#[test]
fn every_job_of_a_random_graph_ends_as_the_model_says() {
    let seed = RandomState::new().hash_one(0);
    let jobs = graph(seed);
    let mut text = String::new();
    // Backwards, so that file order is no help.
    for (number, job) in jobs.iter().enumerate().rev() {
        let command = if job.fails { "false" } else { "true" };
        let needs: Vec<String> = job
            .needs
            .iter()
            .map(|(need, when)| format!("{{ job = 'n{need}', when = '{when}' }}"))
            .collect();
        let class = if number % 3 == 0 { "io" } else { "cpu" };
        text += &format!(
            "[[job]]\nname = 'n{number}'\nrun = '{command}'\nclass = '{class}'\npriority = 'P{}'\nneeds = [{}]\n",
            number % 3,
            needs.join(", ")
        );
    }
    let case = Case::toml(&text);
    let (events, done) = case.events(&["--limit", "io=2"]);
    let expected = model(&jobs);
    done.expect(1);

    let mut ends: HashMap<&str, &str> = HashMap::new();
    for event in &events {
        let job = event["job"].as_str().unwrap_or_default();
        match event["event"].as_str().unwrap() {
            "job-started" => {
                let number: usize = job[1..].parse().unwrap();
                for (need, _) in &jobs[number].needs {
                    let name = format!("n{need}");
                    assert!(
                        ends.contains_key(name.as_str()),
                        "{job} before {name}; seed {seed}"
                    );
                }
            }
            "job-finished" => {
                let before = ends.insert(job, event["status"].as_str().unwrap());
                assert_eq!(before, None, "{job} ended twice; seed {seed}");
            }
            "job-skipped" => {
                let before = ends.insert(job, "skipped");
                assert_eq!(before, None, "{job} ended twice; seed {seed}");
            }
            _ => {}
        }
    }
    for (number, expected) in expected.iter().enumerate() {
        assert_eq!(
            ends[format!("n{number}").as_str()],
            *expected,
            "n{number}; seed {seed}"
        );
    }
    let last = events.last().unwrap();
    for (key, end) in [
        ("succeeded", "success"),
        ("failed", "failed"),
        ("skipped", "skipped"),
    ] {
        let count = expected.iter().filter(|&&expected| expected == end).count();
        assert_eq!(last[key], count, "{key}; seed {seed}");
    }
}
