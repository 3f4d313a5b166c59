//! A matrix, unfolded into its cells.
//!
//! The rules are those of GitHub Actions' `jobs.<id>.strategy.matrix`: the cross product of the
//! axes, the last running fastest; less what `exclude` takes out; then `include` adds keys to the
//! cells of that product which agree on the axes it names, and is a cell of its own where there is
//! none. A cell that `include` made takes nothing from a later one.

use std::collections::HashMap;

use super::findings::{Findings, Place, place_of};
use crate::job_file::{Cell, MatrixKeys};
use crate::source::{SourceId, Spanned};
use crate::template::is_key;

/// More cells than this are refused before any is made.
const CELLS_MAX: u128 = 10_000_000;

/// Names of placeholders that are no matrix keys.
pub(super) const TAKEN: [&str; 3] = ["name", "attempt", "cpus"];

/// The value of a key that a cell lacks.
const ABSENT: u32 = u32::MAX;

/// The cells of one job's matrix. A job without a matrix has one cell and no keys.
#[derive(Debug)]
pub(super) struct Matrix {
    keys: Vec<Box<str>>,
    /// Each value once.
    values: Vec<Box<str>>,
    /// Cell by cell, for each key the place of its value.
    rows: Vec<u32>,
    cells: u32,
}

impl Matrix {
    /// The matrix of a job that has none.
    pub(super) fn single() -> Self {
        Self {
            keys: Vec::new(),
            values: Vec::new(),
            rows: Vec::new(),
            cells: 1,
        }
    }

    /// Unfolds a matrix; `None` where it has mistakes.
    pub(super) fn unfold(
        source: SourceId,
        matrix: &Spanned<MatrixKeys>,
        findings: &mut Findings,
    ) -> Option<Self> {
        let whole = place_of(source, matrix);
        let matrix = &matrix.value;
        if !check(source, &whole, matrix, findings) || matrix.has_mistakes {
            return None;
        }
        let unfolded = Unfolding::new(matrix).unfold(matrix);
        if unfolded.cells == 0 {
            let mut finding = whole.warning("this matrix has no cells, so the job never runs");
            finding.help = Some("give it an axis or an `include`, or exclude less".into());
            findings.push(finding);
        }
        Some(unfolded)
    }

    /// True of the one cell of what has no matrix.
    pub(super) fn is_single(&self) -> bool {
        self.cells == 1 && self.keys.is_empty()
    }

    pub(super) fn cells(&self) -> u32 {
        self.cells
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(AsRef::as_ref)
    }

    /// The place of a key among [`Matrix::keys`].
    pub(super) fn column(&self, key: &str) -> Option<usize> {
        self.keys().position(|own| own == key)
    }

    pub(super) fn value(&self, cell: u32, column: usize) -> Option<&str> {
        let value = self.rows[cell as usize * self.keys.len() + column];
        (value != ABSENT).then(|| &*self.values[value as usize])
    }

    /// The first cell that lacks a key.
    pub(super) fn cell_without(&self, column: usize) -> Option<u32> {
        (0..self.cells).find(|cell| self.value(*cell, column).is_none())
    }

    /// The keys and values that a cell has.
    pub(super) fn pairs(&self, cell: u32) -> impl Iterator<Item = (&str, &str)> {
        self.keys()
            .enumerate()
            .filter_map(move |(column, key)| Some((key, self.value(cell, column)?)))
    }

    /// A cell in words: `os=linux, shard=3`.
    pub(super) fn describe(&self, cell: u32) -> String {
        let pairs: Vec<String> = self
            .pairs(cell)
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        pairs.join(", ")
    }
}

/// Reports what is wrong with a matrix; true if nothing is.
fn check(source: SourceId, whole: &Place, matrix: &MatrixKeys, findings: &mut Findings) -> bool {
    let mut errors = Vec::new();
    let axes = matrix.axes.iter().map(|(key, _)| key);
    let included = matrix
        .include
        .iter()
        .flat_map(|cell| &cell.value)
        .map(|(key, _)| key);
    for key in axes.chain(included) {
        let place = place_of(source, key);
        if TAKEN.contains(&key.value.as_str()) {
            let mut error = place.error(format!("a matrix key cannot be called `{}`", key.value));
            error.help = Some(format!("`{{{}}}` has a meaning of its own", key.value));
            errors.push(error);
        } else if !is_key(&key.value) {
            let mut error = place.error(format!(
                "no placeholder can name the matrix key `{}`",
                key.value
            ));
            error.help = Some("use letters, digits, `_` and `-`".into());
            errors.push(error);
        }
    }
    for (key, _) in matrix.exclude.iter().flat_map(|cell| &cell.value) {
        let axes = || matrix.axes.iter().map(|(axis, _)| axis.value.as_str());
        if !axes().any(|axis| axis == key.value) {
            let mut error = place_of(source, key)
                .error(format!("`exclude` gives `{}`, which is no axis", key.value));
            let list: Vec<String> = axes().map(|axis| format!("`{axis}`")).collect();
            error.help = Some(match list.as_slice() {
                [] => "this matrix has no axes".into(),
                list => format!("the axes are {}", list.join(", ")),
            });
            errors.push(error);
        }
    }
    let product = matrix.axes.iter().fold(1, |product: u128, (_, values)| {
        product.saturating_mul(values.len() as u128)
    });
    let cells = product.saturating_add(matrix.include.len() as u128);
    if cells > CELLS_MAX {
        let mut error = whole.error(format!(
            "this matrix has {cells} cells; {CELLS_MAX} is the most"
        ));
        error.help = Some("split the job, or let one job do several cells' work".into());
        errors.push(error);
    }
    let is_sound = errors.is_empty();
    errors.into_iter().for_each(|error| findings.push(error));
    is_sound
}

/// A matrix being unfolded: what the final one has, and how to find keys and values again.
struct Unfolding<'m> {
    columns: HashMap<&'m str, usize>,
    keys: Vec<Box<str>>,
    places: HashMap<&'m str, u32>,
    values: Vec<Box<str>>,
}

impl<'m> Unfolding<'m> {
    fn new(matrix: &'m MatrixKeys) -> Self {
        let mut unfolding = Self {
            columns: HashMap::new(),
            keys: Vec::new(),
            places: HashMap::new(),
            values: Vec::new(),
        };
        for (key, values) in &matrix.axes {
            unfolding.add_key(&key.value);
            values
                .iter()
                .for_each(|value| unfolding.add_value(&value.value));
        }
        for (key, value) in matrix.include.iter().flat_map(|cell| &cell.value) {
            unfolding.add_key(&key.value);
            unfolding.add_value(&value.value);
        }
        unfolding
    }

    fn add_key(&mut self, key: &'m str) {
        self.columns.entry(key).or_insert_with(|| {
            self.keys.push(key.into());
            self.keys.len() - 1
        });
    }

    fn add_value(&mut self, value: &'m str) {
        self.places.entry(value).or_insert_with(|| {
            self.values.push(value.into());
            u32::try_from(self.values.len() - 1).expect("a file has fewer values than bytes")
        });
    }

    /// The columns and values that a cell of `include` or `exclude` gives; a value that stands
    /// nowhere else is `ABSENT`, which no cell of the product has.
    fn pairs(&self, cell: &Cell) -> Vec<(usize, u32)> {
        cell.iter()
            .map(|(key, value)| {
                let place = self.places.get(value.value.as_str());
                (
                    self.columns[key.value.as_str()],
                    place.copied().unwrap_or(ABSENT),
                )
            })
            .collect()
    }

    fn unfold(self, matrix: &MatrixKeys) -> Matrix {
        let axes = matrix.axes.len();
        let width = self.keys.len();
        let mut rows = self.product(matrix);
        let product = rows.len().checked_div(width).unwrap_or(0);
        for include in &matrix.include {
            let pairs = self.pairs(&include.value);
            let (named, added): (Vec<_>, Vec<_>) =
                pairs.iter().partition(|(column, _)| *column < axes);
            let mut is_added = false;
            for row in rows.chunks_exact_mut(width.max(1)).take(product) {
                if agrees(row, &named) {
                    added
                        .iter()
                        .for_each(|(column, value)| row[*column] = *value);
                    is_added = true;
                }
            }
            if !is_added {
                let begin = rows.len();
                rows.resize(begin + width, ABSENT);
                pairs
                    .iter()
                    .for_each(|(column, value)| rows[begin + column] = *value);
            }
        }
        let cells = rows.len().checked_div(width).unwrap_or(0);
        Matrix {
            keys: self.keys,
            values: self.values,
            rows,
            cells: u32::try_from(cells).expect("CELLS_MAX is less"),
        }
    }

    /// The rows of the cross product, less those taken out; `include`'s columns are absent.
    fn product(&self, matrix: &MatrixKeys) -> Vec<u32> {
        if matrix.axes.iter().any(|(_, values)| values.is_empty()) || matrix.axes.is_empty() {
            return Vec::new();
        }
        let excludes: Vec<_> = matrix
            .exclude
            .iter()
            .map(|cell| self.pairs(&cell.value))
            .collect();
        let axes: Vec<Vec<u32>> = matrix
            .axes
            .iter()
            .map(|(_, values)| {
                values
                    .iter()
                    .map(|v| self.places[v.value.as_str()])
                    .collect()
            })
            .collect();
        let mut rows = Vec::new();
        let mut at = vec![0; axes.len()];
        let mut row = vec![ABSENT; self.keys.len()];
        loop {
            for (column, values) in axes.iter().enumerate() {
                row[column] = values[at[column]];
            }
            if !excludes.iter().any(|exclude| agrees(&row, exclude)) {
                rows.extend_from_slice(&row);
            }
            let Some(moving) = (0..axes.len()).rfind(|axis| at[*axis] + 1 < axes[*axis].len())
            else {
                return rows;
            };
            at[moving] += 1;
            at[moving + 1..].fill(0);
        }
    }
}

fn agrees(row: &[u32], pairs: &[(usize, u32)]) -> bool {
    pairs.iter().all(|(column, value)| row[*column] == *value)
}
