//! A plan carried out.
