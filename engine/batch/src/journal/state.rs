//! What is known of jobs, rebuilt from what the journal says.

use std::collections::HashMap;

use super::reader::Said;
use super::record::{Born, JobEnd, Record, RunFinished, RunStarted};
use crate::event::Status;

/// Runs that are remembered; those before them have been compacted away.
const MOST_RUNS: usize = 100;

/// What is known of jobs and of the runs before.
#[derive(Debug, Default)]
pub struct State {
    /// The runs, the last one last.
    pub runs: Vec<Run>,
    pub(super) jobs: HashMap<u128, Job>,
    /// Of the last run, by number.
    numbers: Vec<Option<u128>>,
    /// All runs there have been.
    run: u64,
}

/// A run that the journal knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// How it began.
    pub started: RunStarted,
    /// How it ended; `None` where it was killed, or runs.
    pub finished: Option<RunFinished>,
}

/// A job that some run has started.
#[derive(Debug, Clone)]
pub struct Job {
    /// How it was called then.
    pub name: Box<str>,
    /// Whether it has a name of its own.
    pub is_named: bool,
    /// How it ended, and its definition then. A cancel takes nothing away from what was known.
    pub end: Option<(u128, JobEnd)>,
    /// The attempt that runs, as far as the journal knows, with its process.
    pub open: Option<Box<Open>>,
    definition: u128,
    /// The last run, counted from 1, that has told of it.
    run: u64,
    /// Attempts up to this one have ended in that run.
    ended: u32,
}

/// An attempt whose end is not recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// From 1.
    pub attempt: u32,
    /// Its first process.
    pub pid: u32,
    /// When that began.
    pub born: Born,
}

/// What of the last run may still be alive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unended {
    /// The run; none where the last one came to its end.
    pub run: Option<RunStarted>,
    /// Attempts with a process, by the names of their jobs.
    pub open: Vec<(String, Open)>,
    /// For each job, up to which attempt they have ended.
    pub ended: HashMap<String, u32>,
    /// The names of jobs by their numbers in the run, of those that have started.
    pub names: HashMap<u32, String>,
}

impl State {
    pub(super) fn take(&mut self, said: Said) {
        let record = match said {
            Said::Record(record) => record,
            // Whatever a number stood for, it may stand for something else by now.
            Said::Gap => return self.numbers.clear(),
        };
        match record {
            Record::RunStarted(started) => {
                self.numbers.clear();
                self.run += 1;
                // What ran then has been ended, or the machine was started anew.
                for job in self.jobs.values_mut() {
                    job.open = None;
                }
                if self.runs.len() == MOST_RUNS {
                    self.runs.remove(0);
                }
                self.runs.push(Run {
                    started,
                    finished: None,
                });
            }
            Record::Job {
                number,
                key,
                definition,
                name,
                is_named,
            } => {
                let place = number as usize;
                if self.numbers.len() <= place {
                    self.numbers.resize(place + 1, None);
                }
                self.numbers[place] = Some(key);
                let run = self.run;
                let known = self.jobs.remove(&key);
                let job = Job {
                    name: name.into(),
                    is_named,
                    end: known.and_then(|known| known.end),
                    open: None,
                    definition,
                    run,
                    ended: 0,
                };
                self.jobs.insert(key, job);
            }
            Record::Started {
                number,
                attempt,
                pid,
                born,
            } => {
                if let Some(job) = self.numbered(number) {
                    job.open = Some(Box::new(Open { attempt, pid, born }));
                }
            }
            Record::Retried {
                number, attempt, ..
            } => {
                if let Some(job) = self.numbered(number) {
                    job.open = None;
                    job.ended = attempt;
                }
            }
            Record::Finished { number, end } => {
                if let Some(job) = self.numbered(number) {
                    job.open = None;
                    job.ended = end.attempt;
                    if end.status != Status::Cancelled || job.end.is_none() {
                        job.end = Some((job.definition, end));
                    }
                }
            }
            Record::RunFinished(finished) => {
                self.numbers.clear();
                if let Some(run) = self.runs.last_mut() {
                    run.finished = Some(finished);
                }
            }
            Record::Known {
                key,
                name,
                is_named,
                definition,
                end,
            } => {
                let job = Job {
                    name: name.into(),
                    is_named,
                    end: Some((definition, end)),
                    open: None,
                    definition,
                    run: 0,
                    ended: 0,
                };
                self.jobs.insert(key, job);
            }
            Record::Durable { .. } | Record::Whole { .. } => {}
        }
    }

    fn numbered(&mut self, number: u32) -> Option<&mut Job> {
        let key = (*self.numbers.get(number as usize)?)?;
        self.jobs.get_mut(&key)
    }

    /// What a snapshot says.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        let runs = self.runs.iter().flat_map(|run| {
            let started = Some(Record::RunStarted(run.started.clone()));
            [started, run.finished.map(Record::RunFinished)]
        });
        let jobs = self.jobs.iter().filter_map(|(key, job)| {
            let (definition, end) = job.end?;
            Some(Record::Known {
                key: *key,
                name: job.name.to_string(),
                is_named: job.is_named,
                definition,
                end,
            })
        });
        runs.flatten().chain(jobs)
    }

    /// The jobs that some run has started, in no order.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// The same, with what they are [known by](crate::plan::Identity::key).
    pub fn jobs_by_key(&self) -> impl Iterator<Item = (u128, &Job)> {
        self.jobs.iter().map(|(&key, job)| (key, job))
    }

    /// What is known of the job that has this key.
    pub fn job(&self, key: u128) -> Option<&Job> {
        self.jobs.get(&key)
    }

    /// What may still be alive of the last run.
    pub fn unended(&self) -> Unended {
        let Some(run) = self.runs.last().filter(|run| run.finished.is_none()) else {
            return Unended::default();
        };
        let current = self.run;
        let of_run = || self.jobs.values().filter(|job| job.run == current);
        let open = of_run().filter_map(|job| Some((job.name.to_string(), *job.open.clone()?)));
        let ended = of_run().filter(|job| job.ended > 0);
        let numbers = (0..).zip(&self.numbers);
        let names = numbers.filter_map(|(number, key)| {
            let name = &self.jobs.get(key.as_ref()?)?.name;
            Some((number, name.to_string()))
        });
        Unended {
            names: names.collect(),
            run: Some(run.started.clone()),
            open: open.collect(),
            ended: ended.map(|job| (job.name.to_string(), job.ended)).collect(),
        }
    }
}

impl Job {
    /// True if it succeeded and has said the same since.
    pub fn has_succeeded_as(&self, definition: u128) -> bool {
        self.is_over_as(definition, |status| status == Status::Success)
    }

    /// True if it failed, and said the same.
    pub fn has_failed_as(&self, definition: u128) -> bool {
        self.is_over_as(definition, |status| matches!(status, Status::Failed(_)))
    }

    /// True if it is over, and said something else then.
    pub fn has_changed_from(&self, definition: u128) -> bool {
        matches!(&self.end, Some((known, end))
            if *known != definition && end.status != Status::Cancelled)
    }

    fn is_over_as(&self, definition: u128, how: impl Fn(Status) -> bool) -> bool {
        matches!(&self.end, Some((known, end)) if *known == definition && how(end.status))
    }
}
