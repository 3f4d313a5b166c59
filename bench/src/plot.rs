//! A case as a picture: a bar a contender up to its median, with a line from the least of its samples to
//! the 99th percentile. Where bars would differ by more than a hundred times, the axis is logarithmic
//! and says so. Colours are the page's.

use std::fmt::Write;

use crate::case::Role;
use crate::summary::Row;
use crate::verdict::number;

const NAMES: f64 = 230.0;
const BARS: f64 = 560.0;
const VALUES: f64 = 110.0;
const LINE: f64 = 24.0;

/// Where values lie along the bars.
struct Axis {
    least: f64,
    greatest: f64,
    logarithmic: bool,
}

impl Axis {
    fn of(rows: &[&Row]) -> Axis {
        let values = || {
            rows.iter()
                .flat_map(|row| [row.median, row.p99, row.min])
                .flatten()
        };
        let greatest = values().fold(0.0, f64::max);
        let least = values()
            .filter(|value| *value > 0.0)
            .fold(greatest, f64::min);
        Axis {
            least,
            greatest,
            logarithmic: greatest > 100.0 * least,
        }
    }

    /// From 0 to the width of the bars.
    fn place(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            // So that the least has a bar too.
            let from = self.least / 1.5;
            (value.max(from) / from).ln() / (self.greatest / from).ln()
        } else {
            value / self.greatest
        };
        if share.is_finite() {
            BARS * share.clamp(0.0, 1.0)
        } else {
            0.0
        }
    }
}

/// The picture, as an SVG element.
pub(crate) fn svg(rows: &[&Row], title: &str) -> String {
    let axis = Axis::of(rows);
    let height = LINE * (rows.len() as f64 + 1.0);
    let width = NAMES + BARS + VALUES;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">\n",
        escaped(title)
    );
    for (line, row) in rows.iter().enumerate() {
        svg.push_str(&bar(row, &axis, LINE * line as f64));
    }
    let unit = rows.first().map_or("", |row| row.unit);
    let scale = if axis.logarithmic {
        ", logarithmic"
    } else {
        ""
    };
    let foot = height - 7.0;
    let _ = writeln!(
        svg,
        "<text x=\"{NAMES}\" y=\"{foot}\" class=\"axis\">{}{scale}; less is better</text>\n</svg>",
        escaped(unit)
    );
    svg
}

fn bar(row: &Row, axis: &Axis, top: f64) -> String {
    let base = top + 16.0;
    let label = format!("{} ×{}", row.contender, row.threads);
    let mut bar = format!(
        "<text x=\"{}\" y=\"{base}\" class=\"name\">{}</text>",
        NAMES - 8.0,
        escaped(&label)
    );
    let Some(median) = row.median else {
        let note = row.note.as_deref().unwrap_or("no numbers");
        let short: String = note.chars().take(80).collect();
        let _ = writeln!(
            bar,
            "<text x=\"{NAMES}\" y=\"{base}\" class=\"axis\">{}</text>",
            escaped(&short)
        );
        return bar;
    };
    let class = match row.role {
        Role::Ours => "ours",
        Role::Peer => "peer",
        Role::Floor => "floor",
    };
    let (length, top) = (axis.place(median), top + 4.0);
    let middle = top + 8.0;
    let from = NAMES + axis.place(row.min.unwrap_or(median));
    let to = NAMES + axis.place(row.p99.unwrap_or(median));
    let _ = writeln!(
        bar,
        "<rect x=\"{NAMES}\" y=\"{top}\" width=\"{length:.1}\" height=\"16\" rx=\"2\" class=\"{class}\"/>\
         <line x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{middle}\" y2=\"{middle}\" class=\"spread\"/>\
         <text x=\"{}\" y=\"{base}\">{}</text>",
        NAMES + BARS + 8.0,
        number(median)
    );
    bar
}

/// Text as it may stand in HTML.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_far_longer_bar_makes_the_axis_logarithmic_and_stays_on_it() {
        let near = Axis {
            least: 1.0,
            greatest: 4.0,
            logarithmic: false,
        };
        assert_eq!((near.place(2.0), near.place(-1.0)), (BARS / 2.0, 0.0));
        let far = Axis {
            least: 1.0,
            greatest: 1e6,
            logarithmic: true,
        };
        assert!(far.place(1.0) > 0.0);
        assert_eq!(far.place(1e6), BARS);
    }

    #[test]
    fn nothing_but_zeros_has_no_bars() {
        let axis = Axis {
            least: 0.0,
            greatest: 0.0,
            logarithmic: false,
        };
        assert_eq!(axis.place(0.0), 0.0);
    }

    #[test]
    fn markup_in_a_note_is_text() {
        assert_eq!(escaped("<a> & \"b\""), "&lt;a&gt; &amp; &quot;b&quot;");
    }
}
