//! Exit codes, by name.

/// All went well.
pub const OK: u8 = 0;
/// A job failed, or was cancelled or skipped for it.
pub const JOBS_FAILED: u8 = 1;
/// The command line or a file was refused; nothing ran.
pub const REFUSED: u8 = 2;
/// The engine itself failed.
pub const ENGINE_FAILED: u8 = 3;
/// Ended by a signal: this and its number.
pub const BY_SIGNAL: u8 = 128;
