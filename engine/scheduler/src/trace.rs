//! A span for each job (crate feature `tracing`), with ids as the W3C's Trace Context has them.
//!
//! A job's span is a child of that of the job which submits it, and in the terms of `tracing` of the span
//! that its submitter is in. The first of a process continues the trace that the environment names in
//! `TRACEPARENT`, or begins one. Where nobody records these spans, nothing is made, and what costs is to
//! ask whether somebody does.
//!
//! Source: <https://www.w3.org/TR/trace-context/>, version 00.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use tracing::Span;
use tracing::field::Empty;

use crate::cell::Meta;
use crate::current::Current;
use crate::error::JobError;

/// Who a span is: of which trace, and which one in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

/// As it stands in a header, or in `TRACEPARENT`.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TraceParent { trace, span, flags } = self;
        write!(f, "00-{trace:032x}-{span:016x}-{flags:02x}")
    }
}

/// Its bit of the flags: whoever began the trace may record it.
const SAMPLED: u8 = 1;

impl TraceParent {
    /// `None` for what is none. Of later versions what version 00 knows is read, as it asks for.
    pub(crate) fn parse(text: &str) -> Option<TraceParent> {
        const LENGTH: usize = 55;
        let (head, rest) = text.split_at_checked(LENGTH)?;
        let mut parts = head.split('-');
        let mut hex = |digits: usize| {
            let part = parts.next()?;
            let is_hex = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
            let is_whole = part.len() == digits && part.bytes().all(is_hex);
            u128::from_str_radix(part, 16).ok().filter(|_| is_whole)
        };
        let (version, trace) = (hex(2)?, hex(32)?);
        let span = u64::try_from(hex(16)?).ok()?;
        let flags = u8::try_from(hex(2)?).ok()?;
        let is_longer = !rest.is_empty();
        let is_known = match version {
            0 => !is_longer,
            0xff => false,
            _ => !is_longer || rest.starts_with('-'),
        };
        let is_some = trace != 0 && span != 0;
        (is_known && is_some).then_some(TraceParent { trace, span, flags })
    }

    /// One that begins a trace.
    fn root() -> TraceParent {
        let trace = u128::from(random()) << 64 | u128::from(random());
        TraceParent {
            trace,
            span: random(),
            flags: SAMPLED,
        }
    }

    fn child(self) -> TraceParent {
        TraceParent {
            span: random(),
            ..self
        }
    }
}

/// What the environment names.
pub(crate) fn of_process() -> Option<TraceParent> {
    static OF_PROCESS: OnceLock<Option<TraceParent>> = OnceLock::new();
    *OF_PROCESS.get_or_init(|| {
        let text = std::env::var("TRACEPARENT").ok()?;
        let parsed = TraceParent::parse(&text);
        if parsed.is_none() {
            tracing::warn!(
                "TRACEPARENT is {text:?}, which is no trace context; jobs begin a trace of their own"
            );
        }
        parsed
    })
}

/// Not zero, and not like any other: by the generator splitmix64 (Steele, Lea, Flood 2014), from a seed
/// for each thread that the system gives.
fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
    }
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).max(1)
    })
}

/// What is known of the span of a job before it begins.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    own: TraceParent,
    parent: Option<u64>,
    /// The span that its submitter was in.
    within: Span,
}

/// True if somebody records the spans of jobs.
pub(crate) fn is_recorded() -> bool {
    tracing::enabled!(target: "reiver::job", tracing::Level::INFO)
}

impl Trace {
    /// Of a job that is being submitted, if somebody records it; `given` is what its submitter says.
    pub(crate) fn of_submission(given: Option<TraceParent>) -> Option<Trace> {
        if !is_recorded() {
            return None;
        }
        let of_job = || Current::with(|current| Some(current?.trace()?.own));
        let parent = given.or_else(of_job).or_else(of_process);
        Some(Trace {
            own: parent.map_or_else(TraceParent::root, TraceParent::child),
            parent: parent.map(|parent| parent.span),
            within: Span::current(),
        })
    }

    pub(crate) fn own(&self) -> TraceParent {
        self.own
    }
}

/// The span of a job that begins; one that records nothing if nobody does.
pub(crate) fn span(meta: &Meta) -> Span {
    let Some(trace) = meta.trace() else {
        return Span::none();
    };
    let span = tracing::info_span!(
        target: "reiver::job",
        parent: &trace.within,
        "job",
        name = Empty,
        class = ?meta.class,
        priority = ?meta.priority,
        trace_id = format_args!("{:032x}", trace.own.trace),
        span_id = format_args!("{:016x}", trace.own.span),
        parent_id = Empty,
        wait_us = u64::try_from(meta.submitted.elapsed().as_micros()).unwrap_or(u64::MAX),
        outcome = Empty,
    );
    if let Some(name) = meta.name() {
        span.record("name", &**name);
    }
    if let Some(parent) = trace.parent {
        span.record("parent_id", format_args!("{parent:016x}"));
    }
    span
}

/// How the job has come out.
pub(crate) fn note_end(span: &Span, error: Option<&JobError>) {
    let outcome = match error {
        None => "completed",
        Some(JobError::Panicked(_)) => "panicked",
        Some(JobError::Cancelled) => "cancelled",
        Some(JobError::DeadlineExceeded { .. }) => "deadline_exceeded",
        Some(JobError::ShutDown | JobError::Rejected(_)) => "shut_down",
    };
    span.record("outcome", outcome);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_standard_shows_is_understood() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed = TraceParent::parse(text).unwrap();
        assert_eq!(parsed.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((parsed.span, parsed.flags), (0x00f0_67aa_0ba9_02b7, 1));
        assert_eq!(parsed.to_string(), text);
        let later = text.replacen("00-", "cc-", 1);
        assert_eq!(TraceParent::parse(&later), Some(parsed));
        assert_eq!(TraceParent::parse(&format!("{later}-more")), Some(parsed));
    }

    #[test]
    fn what_the_standard_forbids_is_none() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let long = format!("{text}-more");
        let wrong = [
            "",
            "00",
            &long,
            &text[1..],
            &text.replace('-', "_"),
            &text.to_uppercase(),
            &text.replacen("00-", "ff-", 1),
            &text.replacen("00-", "0x-", 1),
            &text.replacen("00-", "+0-", 1),
            &text.replace("00f067aa0ba902b7", "0000000000000000"),
            &text.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-é",
        ];
        for text in wrong {
            assert_eq!(TraceParent::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace in 1_u128.., span in 1_u64.., flags: u8) {
            let parent = TraceParent { trace, span, flags };
            prop_assert_eq!(TraceParent::parse(&parent.to_string()), Some(parent));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            if let Some(parsed) = TraceParent::parse(&text) {
                prop_assert_eq!(&parsed.to_string()[3..], &text[3..55]);
            }
        }
    }
}
