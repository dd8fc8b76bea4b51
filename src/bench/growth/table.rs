//! How growth is told: a table for each axis, in which each cost has a column that says what became of it since the row before.
//!
//! Costs are per unit. One that stays as it is grows as it should; one that is more than a quarter dearer than in the row
//! before is marked.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::Axis;
use crate::bench::words::{aligned, grouped, or_dash, percent, short};

/// A cost that grew by more than this factor from one row to the next is marked.
const WORSE: f64 = 1.25;
/// More CPU than this spent by others, in cores, and the figures cannot be trusted.
const OTHERS_CORES_MAX: f64 = 0.15;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A figure that may be whatever it is.
    Plain,
    /// What a unit costs: it should not grow.
    Cost,
}

/// A column: one measure of all rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name for programs, with the unit last.
    pub key: &'static str,
    /// Its name for people.
    pub head: &'static str,
    /// Its name in the picture, where it stands in it; else empty.
    pub line: &'static str,
    /// What it holds.
    pub kind: Kind,
}

impl Column {
    /// A figure that stands in the table alone.
    pub(super) const fn plain(key: &'static str, head: &'static str) -> Self {
        Self { key, head, line: "", kind: Kind::Plain }
    }

    /// A cost, and what it is called in the picture.
    pub(super) const fn cost(key: &'static str, head: &'static str, line: &'static str) -> Self {
        Self { key, head, line, kind: Kind::Cost }
    }
}

/// A row: how much there was of what grows, and what was measured, by column. What could not be measured is absent.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// How much there was of what grows.
    pub at: u64,
    /// A figure for each column.
    pub figures: Vec<Option<f64>>,
}

/// What was measured along one axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Which axis.
    pub axis: Axis,
    /// What grows, above the first column.
    pub head: &'static str,
    /// What grows, and under which load: the title.
    pub load: String,
    /// The measures.
    pub columns: &'static [Column],
    /// From the least to the most.
    pub rows: Vec<Row>,
}

impl Table {
    /// The `rows` of `axis` under this load.
    pub(super) fn new(axis: Axis, load: String, rows: Vec<Row>) -> Self {
        let (head, columns) = axis.shape();
        Self { axis, head, load, columns, rows }
    }

    /// What became of the cost in `column` at row `at`, as a factor since the last row before that has one.
    pub fn growth(&self, column: usize, at: usize) -> Option<f64> {
        let before = self.rows[..at].iter().rev().find_map(|row| row.figures[column])?;
        let now = self.rows[at].figures[column]?;
        (before > 0.0).then(|| now / before)
    }

    /// The figures of `column` that there are, over what grows.
    pub fn points(&self, column: usize) -> Vec<(u64, f64)> {
        let point = |row: &Row| Some((row.at, row.figures[column].filter(|cost| *cost > 0.0)?));
        self.rows.iter().filter_map(point).collect()
    }

    /// The table for people.
    pub(super) fn text(&self) -> String {
        let mut heads = vec![self.head.to_string()];
        for column in self.columns {
            heads.push(column.head.into());
            heads.extend((column.kind == Kind::Cost).then(|| "GROWTH ".into()));
        }
        let mut lines = vec![heads];
        for (at, row) in self.rows.iter().enumerate() {
            let mut cells = vec![grouped(row.at as f64)];
            for (place, column) in self.columns.iter().enumerate() {
                cells.push(or_dash(row.figures[place].map(short)));
                if column.kind == Kind::Cost {
                    cells.push(self.growth(place, at).map_or_else(String::new, growth_cell));
                }
            }
            lines.push(cells);
        }
        format!("{}\n\n{}", self.load, aligned(&lines, 0))
    }
}

/// `×0.98 `, and `×1.40!` for what grows worse than it should.
fn growth_cell(factor: f64) -> String {
    let mark = if factor > WORSE { '!' } else { ' ' };
    format!("×{factor:.2}{mark}")
}

/// What came of all axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    /// What the servers ran.
    pub design: String,
    /// A table for each axis, in the order of measuring.
    pub tables: Vec<Table>,
    /// Messages that somebody was never shown.
    pub lost: u64,
    /// Messages that somebody was shown again.
    pub twice: u64,
    /// Messages that were never acknowledged.
    pub unanswered: u64,
    /// CPU of everything else on the machine, in cores: the most of all rows.
    pub others_cores: f64,
}

impl Growth {
    /// Whether every promise was kept.
    pub fn is_kept(&self) -> bool {
        (self.lost, self.twice, self.unanswered) == (0, 0, 0)
    }

    /// Why the figures are doubtful, if they are.
    pub fn doubt(&self) -> Option<String> {
        let others = percent(self.others_cores);
        (self.others_cores > OTHERS_CORES_MAX).then(|| {
            format!("other programs used up to {others} of a core meanwhile: measure again")
        })
    }

    /// The tables for people.
    pub fn text(&self) -> String {
        let tables: Vec<String> = self.tables.iter().map(Table::text).collect();
        let mut text = tables.join("\n");
        let _ = writeln!(
            text,
            "\nDesign {}. GROWTH: against the row before; ! where a unit costs more than a quarter more.",
            self.design
        );
        text
    }

    /// The figures for programs: each row is an object with the keys of its columns, what could not be measured is null.
    pub fn json(&self) -> serde_json::Value {
        let row = |table: &Table, row: &Row| {
            let figures = table.columns.iter().zip(&row.figures);
            let mut cells: BTreeMap<&str, Option<f64>> =
                figures.map(|(column, figure)| (column.key, *figure)).collect();
            cells.insert(table.axis.name(), Some(row.at as f64));
            serde_json::json!(cells)
        };
        let table = |table: &Table| {
            let rows: Vec<serde_json::Value> = table.rows.iter().map(|at| row(table, at)).collect();
            serde_json::json!({ "axis": table.axis, "load": table.load, "rows": rows })
        };
        serde_json::json!({
            "design": self.design,
            "axes": self.tables.iter().map(table).collect::<Vec<_>>(),
            "lost": self.lost,
            "twice": self.twice,
            "unanswered": self.unanswered,
            "others_cores": self.others_cores,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const COLUMNS: [Column; 2] = [
        Column::plain("per_second", "PER SECOND"),
        Column::cost("cpu_us", "CPU µs", "CPU of a delivery, µs"),
    ];

    /// A table of one axis whose costs are these.
    pub(crate) fn table_of(axis: Axis, costs: &[Option<f64>]) -> Table {
        let rows = costs.iter().enumerate().map(|(at, cost)| Row {
            at: 10_u64.pow(at as u32),
            figures: vec![Some(1234.0), *cost],
        });
        let (load, rows) = ("Things".into(), rows.collect());
        Table { axis, head: "THINGS", load, columns: &COLUMNS, rows }
    }

    pub(crate) fn growth_of(tables: Vec<Table>) -> Growth {
        let design = "ring".into();
        Growth { design, tables, lost: 0, twice: 0, unanswered: 0, others_cores: 0.0 }
    }

    #[test]
    fn growth_is_a_factor_since_the_last_row_that_has_a_figure() {
        let table = table_of(Axis::Rooms, &[None, Some(2.0), Some(1.0), None, Some(3.0)]);
        let factors: Vec<Option<f64>> = (0..5).map(|at| table.growth(1, at)).collect();
        assert_eq!(factors, [None, None, Some(0.5), None, Some(3.0)]);
        assert_eq!(table.points(1), [(10, 2.0), (100, 1.0), (10_000, 3.0)]);
    }

    #[test]
    fn what_was_nothing_has_no_factor_and_no_point() {
        let table = table_of(Axis::Rooms, &[Some(0.0), Some(2.0)]);
        assert_eq!(table.growth(1, 1), None);
        assert_eq!(table.points(1), [(10, 2.0)]);
    }

    #[test]
    fn a_unit_that_gets_dearer_is_marked() {
        let costs = [Some(2.0), Some(1.0), Some(1.25), Some(1.6), None];
        let text = growth_of(vec![table_of(Axis::Members, &costs)]).text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Things");
        assert_eq!(
            lines[2..8],
            [
                "THINGS  PER SECOND  CPU µs  GROWTH",
                "     1       1,234    2.00",
                "    10       1,234    1.00   ×0.50",
                "   100       1,234    1.25   ×1.25",
                " 1,000       1,234    1.60   ×1.28!",
                "10,000       1,234       -",
            ]
        );
        assert!(lines[9].starts_with("Design ring."), "{text}");
    }

    #[test]
    fn programs_get_a_row_by_its_keys() {
        let mut growth = growth_of(vec![table_of(Axis::History, &[Some(2.5), None])]);
        growth.twice = 1;
        let json = growth.json();
        assert_eq!(json["axes"][0]["axis"], "history");
        assert_eq!(
            json["axes"][0]["rows"][0],
            serde_json::json!({ "history": 1.0, "per_second": 1234.0, "cpu_us": 2.5 })
        );
        assert_eq!(json["axes"][0]["rows"][1]["cpu_us"], serde_json::Value::Null);
        assert_eq!((json["twice"].as_u64(), growth.is_kept()), (Some(1), false));
    }

    #[test]
    fn a_busy_machine_makes_the_figures_doubtful() {
        let mut growth = growth_of(Vec::new());
        assert_eq!(growth.doubt(), None);
        growth.others_cores = 0.4;
        assert!(growth.doubt().is_some_and(|doubt| doubt.contains("up to 40 % of a core")));
    }
}
