//! Which trace a run belongs to, in the words of W3C Trace Context: `TRACEPARENT` of the environment
//! that reiver was started in, or a trace of its own.

use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};

/// The trace of a run. Each job is a span of its own in it, one for all its attempts.
#[derive(Debug)]
pub(super) struct Trace {
    id: String,
    flags: String,
    spans: RandomState,
}

impl Trace {
    /// The one that the environment names, else one of the run's own.
    pub(super) fn of(environment: Option<&OsStr>) -> Trace {
        let spans = RandomState::new();
        let given = environment.and_then(OsStr::to_str).and_then(parse);
        let (id, flags) = given.unwrap_or_else(|| {
            let half = |which: u8| spans.hash_one(("trace", which)).max(1);
            (format!("{:016x}{:016x}", half(0), half(1)), "01".to_owned())
        });
        Trace { id, flags, spans }
    }

    /// `TRACEPARENT` of a job.
    pub(super) fn parent_of(&self, job: &str) -> String {
        let span = self.spans.hash_one(("span", job)).max(1);
        format!("00-{}-{span:016x}-{}", self.id, self.flags)
    }
}

/// The trace and its flags; of later versions than the first as much as is the same in all.
fn parse(text: &str) -> Option<(String, String)> {
    let mut parts = text.split('-');
    let (version, id) = (parts.next()?, parts.next()?);
    let (span, flags) = (parts.next()?, parts.next()?);
    let is_hex = |text: &str, length| {
        let mut bytes = text.bytes();
        text.len() == length && bytes.all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    let is_whole = is_hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && is_hex(id, 32)
        && is_hex(span, 16)
        && is_hex(flags, 2);
    (is_whole && !is_zero(id) && !is_zero(span)).then(|| (id.to_owned(), flags.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn jobs_are_spans_of_the_trace_that_is_given() {
        let trace = Trace::of(Some(OsStr::new(GIVEN)));
        let (a, b) = (trace.parent_of("a"), trace.parent_of("b"));
        for parent in [&a, &b] {
            let (id, flags) = parse(parent).expect("a parent");
            assert_eq!((&*id, &*flags), ("0af7651916cd43dd8448eb211c80319c", "00"));
        }
        assert_ne!(a, b);
        assert_eq!(a, trace.parent_of("a"));
    }

    #[test]
    fn what_is_no_trace_is_not_gone_on_with() {
        let zeros = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        for wrong in [
            "",
            "x",
            zeros,
            &GIVEN.to_uppercase(),
            &GIVEN[1..],
            &format!("{GIVEN}-1"),
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
            let own = Trace::of(Some(OsStr::new(wrong))).parent_of("a");
            assert!(parse(&own).is_some_and(|(_, flags)| flags == "01"), "{own}");
        }
        assert!(parse(&GIVEN.replacen("00", "01", 1)).is_some());
    }
}
