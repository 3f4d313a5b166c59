//! What pools promise, on this machine and with described nodes.

mod buffers;
mod captures;
mod counters;
mod history;
mod limits;
mod nodes;
mod objects;
mod refusal;
mod threads;
mod watchdog;
