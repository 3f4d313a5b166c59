//! Job files, as reading hands them on, made into plans: the rules of the format.

mod lines;
mod maker;
mod matrix;
mod names;
mod needs;
mod run;
mod values;
