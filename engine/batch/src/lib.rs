//! Job files for reiver: parse, plan, run and report.
//!
//! A job file flows one way through this crate, and each stage hands on a value that can no
//! longer be wrong in the way the stage before it could:
//!
//! text → [`read`] → [`JobFile`](job_file::JobFile) → [`plan`] → [`Plan`] → [`run`] →
//! [`Event`](event::Event)s → sinks.
//!
//! Only [`command`] reads the command line, colours anything and decides on an exit code; it stands on
//! all else, and nothing else names it. [`main()`] starts it for a program that has tasks of its own: a
//! [`Registry`] of functions that files name beside commands.

pub mod capture;
pub mod command;
pub mod diagnostic;
pub mod event;
pub mod glob;
mod grouped;
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

pub use command::main;
pub use diagnostic::{Diagnostic, Severity};
pub use plan::Plan;
pub use source::{Form, Source, SourceId};
pub use task::{Registry, TaskContext, TaskOutput};
