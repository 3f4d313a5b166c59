//! The command as its users meet it: real files, real processes, real signals.

mod auto;
mod case;
mod disk;
mod ends;
mod events;
mod examples;
mod help;
mod jobserver;
mod journal;
mod large;
mod machine;
mod memory;
mod mistakes;
mod model;
mod options;
mod output;
mod places;
mod reports;
mod rules;
mod sees;
mod shares;
mod signals;
mod zygote;
