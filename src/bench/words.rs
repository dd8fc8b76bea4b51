//! Figures as people read them: with units, in columns.

use std::fmt::Write as _;

/// `-` for what could not be measured.
pub(super) fn or_dash(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "-".into())
}

/// Rows under each other, each column as wide as its widest cell: the first `names` columns to the left, figures to the right.
pub(super) fn aligned(rows: &[Vec<String>], names: usize) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column < names { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// `850 µs`, `1.25 ms`, `3.20 s`; `-` for none.
pub(super) fn duration(micros: f64) -> String {
    match micros {
        0.0 => "-".into(),
        0.0..10.0 => format!("{micros:.1} µs"),
        10.0..1e3 => format!("{micros:.0} µs"),
        1e3..1e4 => format!("{:.2} ms", micros / 1e3),
        1e4..1e5 => format!("{:.1} ms", micros / 1e3),
        1e5..1e6 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// `1,234,567`, without a fraction.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `57 %`; `0.4 %` where that says more.
pub(super) fn percent(share: f64) -> String {
    let share = share * 100.0;
    if share < 9.95 { format!("{share:.1} %") } else { format!("{share:.0} %") }
}

/// `850 B`, `1.2 KiB`, `340 MiB`.
pub(super) fn bytes(count: f64) -> String {
    let mut count = count;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB"] {
        if count < 1024.0 {
            break;
        }
        (count, unit) = (count / 1024.0, larger);
    }
    if count < 10.0 && unit != "B" {
        format!("{count:.1} {unit}")
    } else {
        format!("{count:.0} {unit}")
    }
}

/// `0.0123`, `0.123`, `1.23`, `12.3`, `1,230`: what is small with three digits, what is large without a fraction.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        ..0.01 => format!("{value:.5}"),
        ..0.1 => format!("{value:.4}"),
        ..0.9995 => format!("{value:.3}"),
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => grouped(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_for_people() {
        let table = [
            (duration(0.0), "-"),
            (duration(4.25), "4.2 µs"),
            (duration(850.0), "850 µs"),
            (duration(1250.0), "1.25 ms"),
            (duration(255_000.0), "255 ms"),
            (duration(3_200_000.0), "3.20 s"),
            (grouped(0.4), "0"),
            (grouped(999.0), "999"),
            (grouped(1_234_567.0), "1,234,567"),
            (percent(0.004), "0.4 %"),
            (percent(1.234), "123 %"),
            (bytes(850.0), "850 B"),
            (bytes(1228.8), "1.2 KiB"),
            (bytes(340.0 * 1024.0 * 1024.0), "340 MiB"),
            (short(0.0), "0"),
            (short(0.004_56), "0.00456"),
            (short(0.045_67), "0.0457"),
            (short(0.1404), "0.140"),
            (short(0.9999), "1.00"),
            (short(9.999), "10.0"),
            (short(99.99), "100"),
            (short(12_345.6), "12,346"),
        ];
        for (text, wanted) in table {
            assert_eq!(text, wanted);
        }
    }

    #[test]
    fn names_stand_at_the_left_and_figures_at_the_right() {
        let row = |words: [&str; 2]| words.map(String::from).to_vec();
        let rows = [row(["A", "B"]), row(["long", "1,000"]), row(["é", "1"])];
        assert_eq!(aligned(&rows, 1), "A         B\nlong  1,000\né         1\n");
        assert_eq!(aligned(&rows, 0), "   A      B\nlong  1,000\n   é      1\n");
    }
}
