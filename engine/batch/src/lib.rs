//! Job files for reiver: parse, plan, run and report.
//!
//! A job file flows one way through this crate, and each stage hands on a value that can no
//! longer be wrong in the way the stage before it could:
//!
//! text → [`read`] → [`JobFile`](job_file::JobFile) → [`plan`] → [`Plan`] → [`run`] →
//! [`Event`](event::Event)s → sinks.
//!
//! The crate never reads the command line, never colours anything and never decides on an exit
//! code by itself: that is `reiver-cli`.

pub mod capture;
pub mod diagnostic;
pub mod event;
pub mod glob;
pub mod job_file;
pub mod joblog;
pub mod journal;
pub mod json;
pub mod learnt;
pub mod plan;
pub mod read;
pub mod report;
pub mod run;
pub mod shell;
pub mod source;
mod task;
mod template;
mod timeline;
pub mod trace;

pub use diagnostic::{Diagnostic, Severity};
pub use plan::Plan;
pub use source::{Form, Source, SourceId};
pub use task::{Registry, TaskContext, TaskOutput};
