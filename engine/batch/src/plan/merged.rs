//! A job's keys and the defaults, as one.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::findings::{Findings, place_of};
use reiver::NodeId;

use super::{Numa, Retries, Settings};
use crate::job_file::JobKeys;
use crate::source::{SourceId, Spanned};

/// How long after TERM comes KILL, where the file does not say.
pub(super) const KILL_AFTER: Duration = Duration::from_secs(5);

/// A job's keys over the defaults.
pub(super) struct Merged<'k> {
    pub(super) own: &'k JobKeys,
    pub(super) defaults: &'k JobKeys,
}

impl<'k> Merged<'k> {
    pub(super) fn get<T>(
        &self,
        key: fn(&JobKeys) -> &Option<Spanned<T>>,
    ) -> Option<&'k Spanned<T>> {
        key(self.own).as_ref().or(key(self.defaults).as_ref())
    }

    fn value<T: Clone>(&self, key: fn(&JobKeys) -> &Option<Spanned<T>>) -> Option<T> {
        self.get(key).map(|spanned| spanned.value.clone())
    }

    /// The defaults' variables in their order, each with the job's value where it has one, then
    /// the job's others.
    pub(super) fn env(&self) -> impl Iterator<Item = (&'k str, &'k Spanned<String>)> {
        let of = |keys: &'k JobKeys| {
            keys.env
                .iter()
                .map(|(key, value)| (key.value.as_str(), value))
        };
        let own: HashMap<_, _> = of(self.own).collect();
        let defaults: HashMap<_, _> = of(self.defaults).collect();
        of(self.defaults)
            .map(move |(key, value)| (key, own.get(key).copied().unwrap_or(value)))
            .chain(of(self.own).filter(move |(key, _)| !defaults.contains_key(key)))
    }

    pub(super) fn settings(&self, source: SourceId, findings: &mut Findings) -> Settings {
        if self.is_task() {
            // What those of a process say besides is not about it.
            return Settings {
                is_task: true,
                kill_after: KILL_AFTER,
                success_codes: vec![0],
                numa: Numa::default(),
                ..self.settings_of_process(source, findings)
            };
        }
        self.settings_of_process(source, findings)
    }

    /// True of a function of the program.
    pub(super) fn is_task(&self) -> bool {
        self.own.task.is_some()
    }

    fn settings_of_process(&self, source: SourceId, findings: &mut Findings) -> Settings {
        Settings {
            is_task: false,
            class: self.value(|keys| &keys.class).unwrap_or_default(),
            priority: self.value(|keys| &keys.priority).unwrap_or_default(),
            cpus: self.value(|keys| &keys.cpus),
            timeout: self.value(|keys| &keys.timeout),
            kill_after: self.value(|keys| &keys.kill_after).unwrap_or(KILL_AFTER),
            retries: self.retries(source, findings),
            success_codes: self
                .value(|keys| &keys.success_codes)
                .unwrap_or_else(|| vec![0]),
            memory: self.value(|keys| &keys.memory),
            numa: self.numa(),
            pool: self.value(|keys| &keys.pool),
            resources: self
                .resources()
                .filter(|(_, count)| count.value > 0)
                .map(|(name, count)| (name.to_owned(), count.value))
                .collect(),
            deadline: self.value(|keys| &keys.deadline),
        }
    }

    /// The resources in the order of their names, each with the job's number where it has one.
    pub(super) fn resources(&self) -> impl Iterator<Item = (&'k str, &'k Spanned<u32>)> {
        let of = |keys: &'k JobKeys| {
            let resources = keys.resources.iter();
            resources.map(|(name, count)| (name.value.as_str(), count))
        };
        let all: BTreeMap<_, _> = of(self.defaults).chain(of(self.own)).collect();
        all.into_iter()
    }

    /// The nodes that it names, with their place.
    pub(super) fn nodes(&self) -> Option<&'k Spanned<Vec<u32>>> {
        let of = |keys: &'k JobKeys| keys.numa.as_ref()?.value.nodes.as_ref();
        of(self.own).or_else(|| of(self.defaults))
    }

    fn numa(&self) -> Numa {
        let of = |keys: &JobKeys| keys.numa.as_ref().map(|numa| numa.value.clone());
        let first = of(self.own).unwrap_or_default();
        let then = of(self.defaults).unwrap_or_default();
        let nodes = self.nodes().map(|nodes| nodes.value.as_slice());
        Numa {
            affinity: first.affinity.or(then.affinity),
            policy: first.policy.or(then.policy),
            nodes: nodes
                .unwrap_or_default()
                .iter()
                .map(|&id| NodeId(id))
                .collect(),
        }
    }

    fn retries(&self, source: SourceId, findings: &mut Findings) -> Retries {
        let own = self.own.retries.as_ref();
        let first = own.map(|retries| retries.value).unwrap_or_default();
        let then = self
            .defaults
            .retries
            .as_ref()
            .map(|r| r.value)
            .unwrap_or_default();
        let count = first.count.or(then.count);
        let is_refused = first.is_count_refused || then.is_count_refused;
        if let (None, Some(own)) = (count, own)
            && !is_refused
        {
            let mut error = place_of(source, own).error("`retries` has no `count`");
            error.help = Some("say how often: `count = 2`".into());
            findings.push(error);
        }
        Retries {
            count: count.unwrap_or(0),
            backoff: first.backoff.or(then.backoff).unwrap_or_default(),
            delay: first.delay.or(then.delay).unwrap_or_default(),
            max_delay: first.max_delay.or(then.max_delay),
            jitter: first.jitter.or(then.jitter).unwrap_or(false),
        }
    }
}
