//! Functions of the program itself as jobs: what a [`Registry`] knows them by, how they get their
//! arguments, and what they are told of the job that they are.
//!
//! A task is a closure with typed arguments. What it does is the program's; when it does it, and what
//! becomes of its failures, is the run's, as for any command beside it.

mod args;
mod context;
mod registry;

pub(crate) use args::{ArgError, Args, Filled};
pub(crate) use context::Told;
pub use context::{TaskContext, TaskOutput};
pub use registry::Registry;
pub(crate) use registry::{Task, message_of};
