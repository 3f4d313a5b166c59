//! The command as its users meet it: real files, real processes, real signals.

mod case;
mod ends;
mod events;
mod examples;
mod journal;
mod machine;
mod memory;
mod mistakes;
mod model;
mod output;
mod places;
mod rules;
mod sees;
mod shares;
