//! What this crate knows of the language of `/bin/sh`: how text is quoted in it, and which lines
//! need no shell at all.
//!
//! It stands on "Shell Command Language" of POSIX.1-2024 and, where shells go their own ways, on
//! what dash, bash and busybox sh agree on; what they read differently is refused rather than
//! guessed. It never runs anything and expands nothing.

mod here;
mod lexer;
mod plain;
mod quoting;
mod syntax;
#[cfg(test)]
mod tests;

pub use plain::plain_words;
pub use quoting::quote;

pub(crate) use lexer::{MARK, quoting_at_marks};
pub(crate) use quoting::{Quoting, Unclear};
