//! One kind of tree for all three forms, each value with its place: so that what keys mean is
//! written once.

use crate::source::{Span, Spanned};

/// A value, and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) span: Span,
    pub(super) kind: Kind,
    /// The word itself, where it was written without quotes where a text could stand (`#JOB`):
    /// for a key that takes text it is one.
    pub(super) bare: Option<String>,
}

pub(super) type Table = Vec<(Spanned<String>, Value)>;

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Text(String),
    /// One that 64 bits hold.
    Integer(i64),
    /// Any other number, as written.
    Number(String),
    Bool(bool),
    Array(Vec<Value>),
    Table(Table),
    /// What no key takes: a date, a null.
    Other(&'static str),
}

impl Value {
    /// What it is, for a message.
    pub(super) fn noun(&self) -> &'static str {
        match self.kind {
            Kind::Text(_) => "a text",
            Kind::Integer(_) | Kind::Number(_) => "a number",
            Kind::Bool(_) => "a boolean",
            Kind::Array(_) => "an array",
            Kind::Table(_) => "a table",
            Kind::Other(noun) => noun,
        }
    }

    /// Its text: it is one, or was written bare where every value may be one.
    pub(super) fn text(&self) -> Option<&str> {
        match (&self.bare, &self.kind) {
            (Some(text), _) | (None, Kind::Text(text)) => Some(text),
            (None, _) => None,
        }
    }
}
