//! Growth as a picture: a panel for each axis, or two where much is measured, and in it what a unit costs, on logarithmic scales.
//!
//! ```text
//!   cost │ ·──·──·──·     flat: as it should be          a line is as steep in every panel: each is at
//!        │       ╱        rising: worse                  least ten times as high as low
//!        └─────────── what grows
//! ```

use plotters::coord::Shift;
use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Axis;
use super::table::{Growth, Table};
use crate::bench::words::short;

/// Width and height of a panel, in pixels.
const PANEL: (u32, u32) = (386, 300);
/// Room for the title above all, in pixels.
const TITLE: u32 = 34;
/// At most so many panels stand beside each other.
const COLUMNS: usize = 3;
/// At most so many lines share a panel.
const LINES_MAX: usize = 2;
/// Room between a panel's title and its chart, for the names of its lines, in pixels.
const NAMES: u32 = 20;
/// Told apart by people who see fewer colours.
const COLOURS: [RGBColor; LINES_MAX] = [RGBColor(0, 114, 178), RGBColor(200, 100, 0)];
/// A scale spans at least this factor, so that noise looks like noise.
const SPAN_MIN: f64 = 10.0;
/// So much is free beside the first and the last point, and above and below all, as a share of what lies between: their
/// figures stand there.
const MARGINS: (f64, f64) = (0.08, 0.2);

/// A line: its name, and its points.
struct Line {
    name: &'static str,
    points: Vec<(u64, f64)>,
}

struct Panel {
    title: &'static str,
    /// What each row has of what grows.
    steps: Vec<u64>,
    short_step: fn(f64) -> String,
    lines: Vec<Line>,
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// The picture as SVG, with `title` above. Fails when something cannot be drawn, with the reason.
pub fn svg(growth: &Growth, title: &str) -> Result<String, String> {
    let panels: Vec<Panel> = growth.tables.iter().flat_map(panels_of).collect();
    let mut text = String::new();
    draw(&panels, title, &mut text).map_err(|error| format!("cannot draw the figures: {error}"))?;
    Ok(text)
}

/// The lines of `table` that have points, so many to a panel.
fn panels_of(table: &Table) -> Vec<Panel> {
    let drawn = table.columns.iter().enumerate().filter(|(_, column)| !column.line.is_empty());
    let lines =
        drawn.map(|(place, column)| Line { name: column.line, points: table.points(place) });
    let mut lines: Vec<Line> = lines.filter(|line| !line.points.is_empty()).collect();
    let title = title_of(table.axis);
    let short_step = if table.axis == Axis::Size { binary } else { thousands };
    let steps: Vec<u64> = table.rows.iter().map(|row| row.at).collect();
    let mut panels = Vec::new();
    while !lines.is_empty() {
        let rest = lines.split_off(lines.len().min(LINES_MAX));
        panels.push(Panel { title, steps: steps.clone(), short_step, lines });
        lines = rest;
    }
    panels
}

/// What grows along `axis`.
pub(super) fn title_of(axis: Axis) -> &'static str {
    match axis {
        Axis::Members => "members of a room",
        Axis::Rooms => "rooms",
        Axis::Servers => "servers",
        Axis::Size => "bytes of a text",
        Axis::History => "messages on disk",
    }
}

/// `100`, `5k`, `1M`.
fn thousands(step: f64) -> String {
    match step {
        1e6.. => format!("{:.0}M", step / 1e6),
        1e3.. => format!("{:.0}k", step / 1e3),
        _ => format!("{step:.0}"),
    }
}

/// `256`, `4K`.
fn binary(step: f64) -> String {
    if step < 1024.0 { format!("{step:.0}") } else { format!("{:.0}K", step / 1024.0) }
}

fn draw(panels: &[Panel], title: &str, text: &mut String) -> Drawn {
    let columns = panels.len().clamp(1, COLUMNS);
    let rows = panels.len().div_ceil(columns).max(1);
    let size = (PANEL.0 * columns as u32, PANEL.1 * rows as u32 + TITLE);
    let root = SVGBackend::with_string(text, size).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(title, ("sans-serif", 20))?;
    for (area, panel) in root.split_evenly((rows, columns)).iter().zip(panels) {
        draw_panel(area, panel)?;
    }
    root.present()?;
    Ok(())
}

fn draw_panel(area: &DrawingArea<SVGBackend, Shift>, panel: &Panel) -> Drawn {
    let area = area.titled(panel.title, ("sans-serif", 17))?;
    let (names, area) = area.split_vertically(NAMES * panel.lines.len() as u32);
    for (place, line) in panel.lines.iter().enumerate() {
        let y = (NAMES * place as u32 + NAMES / 2).cast_signed();
        let dot = Circle::new((66, y), 4, COLOURS[place].filled());
        names.draw(&dot)?;
        let style = ("sans-serif", 15).into_font().color(&BLACK);
        let style = style.pos(Pos::new(HPos::Left, VPos::Center));
        names.draw(&Text::new(line.name, (76, y), style))?;
    }
    let steps: Vec<f64> = panel.steps.iter().map(|step| *step as f64).collect();
    let costs = panel.lines.iter().flat_map(|line| &line.points).map(|point| point.1);
    let Some(scale) = Scale::of(costs) else { return Ok(()) };
    let (first, last) = (steps[0], steps[steps.len() - 1]);
    let margin = (last / first).powf(MARGINS.0).max(1.1);
    let short_step = panel.short_step;
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .x_label_area_size(26)
        .y_label_area_size(50)
        .build_cartesian_2d(
            (first / margin..last * margin).log_scale().with_key_points(steps),
            (scale.low..scale.high).log_scale().with_key_points(scale.marks),
        )?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.15))
        .axis_style(BLACK.mix(0.6))
        .x_labels(panel.steps.len())
        .x_label_formatter(&|step| short_step(*step))
        .y_label_formatter(&|cost| short_mark(*cost))
        .label_style(("sans-serif", 15))
        .draw()?;
    for (place, line) in panel.lines.iter().enumerate() {
        let colour = COLOURS[place];
        let points: Vec<(f64, f64)> = line.points.iter().map(placed).collect();
        let dots = points.iter().map(|point| Circle::new(*point, 4, colour.filled()));
        chart.draw_series(dots)?;
        chart.draw_series([PathElement::new(points, colour.stroke_width(2))])?;
    }
    for (place, point, above) in labels(&panel.lines) {
        let (vertical, away) = if above { (VPos::Bottom, -7) } else { (VPos::Top, 7) };
        let style = ("sans-serif", 15).into_font().color(&COLOURS[place]);
        let style = style.pos(Pos::new(HPos::Center, vertical));
        let label = EmptyElement::at(placed(&point)) + Text::new(short(point.1), (0, away), style);
        chart.draw_series([label])?;
    }
    Ok(())
}

/// Where a point stands.
fn placed((step, cost): &(u64, f64)) -> (f64, f64) {
    (*step as f64, *cost)
}

/// A scale of costs.
#[derive(Clone, Debug, PartialEq)]
struct Scale {
    low: f64,
    high: f64,
    /// What stands at the axis.
    marks: Vec<f64>,
}

impl Scale {
    /// The scale on which `costs` have room, and their figures above and below; `None` for none.
    fn of(costs: impl Iterator<Item = f64>) -> Option<Self> {
        let (least, most) =
            costs.fold((f64::INFINITY, 0.0), |(low, high), cost| (cost.min(low), cost.max(high)));
        if most <= 0.0 {
            return None;
        }
        let span = (most / least).powf(1.0 + 2.0 * MARGINS.1).max(SPAN_MIN);
        let middle = (least * most).sqrt();
        let (low, high) = (middle / span.sqrt(), middle * span.sqrt());
        let between: &[f64] = if span < 100.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let marks = decades.flat_map(|decade| between.iter().map(move |part| (decade, *part)));
        let marks = marks.map(|(decade, part)| part * 10_f64.powi(decade));
        Some(Self { low, high, marks: marks.filter(|mark| (low..=high).contains(mark)).collect() })
    }
}

/// `0.05`, `5`, `1,000`.
fn short_mark(cost: f64) -> String {
    if cost < 1.0 {
        let text = format!("{cost:.6}");
        return text.trim_end_matches('0').into();
    }
    crate::bench::words::grouped(cost)
}

/// The figures in the picture: of the first and the last point of each line. The higher line has them above, the lower one below.
fn labels(lines: &[Line]) -> Vec<(usize, (u64, f64), bool)> {
    let mut labels = Vec::new();
    for (place, line) in lines.iter().enumerate() {
        let (first, last) = (line.points[0], line.points[line.points.len() - 1]);
        let ends = if line.points.len() > 1 { vec![first, last] } else { vec![first] };
        for point in ends {
            let is_higher = |(other, line): (usize, &Line)| {
                let beside = line.points.iter().find(|(step, _)| *step == point.0);
                // Of two that are the same the first one counts as the higher one.
                beside.is_some_and(|(_, cost)| {
                    cost.total_cmp(&point.1).then(place.cmp(&other)).is_gt()
                })
            };
            let higher = lines.iter().enumerate().any(is_higher);
            labels.push((place, point, !higher));
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::{growth_of, table_of};
    use super::*;

    fn scale(costs: &[f64]) -> Scale {
        Scale::of(costs.iter().copied()).unwrap()
    }

    #[test]
    fn a_scale_holds_all_costs_and_spans_a_decade_at_least() {
        for costs in [&[3.0][..], &[3.0, 3.3], &[0.001, 5.0], &[9.99, 10.01]] {
            let Scale { low, high, marks } = scale(costs);
            assert!(high / low > SPAN_MIN * 0.999, "{costs:?}");
            assert!(costs.iter().all(|cost| low < *cost && *cost < high), "{costs:?}");
            assert!((2..=8).contains(&marks.len()), "{costs:?}: {marks:?}");
            assert!(marks.iter().all(|mark| (low..=high).contains(mark)), "{costs:?}: {marks:?}");
        }
        assert_eq!(Scale::of(std::iter::empty()), None);
    }

    #[test]
    fn marks_are_as_long_as_they_need() {
        assert_eq!([0.05, 0.2, 1.0, 5000.0].map(short_mark), ["0.05", "0.2", "1", "5,000"]);
        assert_eq!([1.0, 999.0, 5000.0, 1e7].map(thousands), ["1", "999", "5k", "10M"]);
        assert_eq!([16.0, 1024.0, 65_536.0].map(binary), ["16", "1K", "64K"]);
    }

    #[test]
    fn of_two_lines_the_higher_one_has_its_figures_above() {
        let line = |points: &[(u64, f64)]| Line { name: "", points: points.to_vec() };
        let lines = [line(&[(1, 5.0), (10, 1.0)]), line(&[(1, 2.0), (10, 3.0)])];
        let above: Vec<bool> = labels(&lines).into_iter().map(|(.., above)| above).collect();
        assert_eq!(above, [true, false, false, true]);
        assert_eq!(labels(&lines[..1]).len(), 2);
        assert_eq!(labels(&[line(&[(1, 5.0)])]), [(0, (1, 5.0), true)]);
    }

    #[test]
    fn every_axis_has_a_panel_with_its_steps() {
        let costs = [Some(0.5), Some(0.4), Some(0.04)];
        let tables = Axis::ALL.map(|axis| table_of(axis, &costs)).to_vec();
        let picture = svg(&growth_of(tables), "all of it").unwrap();
        for wanted in ["all of it", "members of a room", "rooms", "servers", "messages on disk"] {
            assert!(picture.contains(&format!("\n{wanted}\n")), "{wanted}");
        }
        assert_eq!(picture.matches("\nCPU of a delivery, µs\n").count(), 5);
        assert_eq!(picture.matches("\n0.0400\n").count(), 5);
        assert!(picture.starts_with("<svg") && !picture.contains("\n\n"), "one block of Markdown");
    }

    #[test]
    fn what_was_not_measured_is_not_drawn() {
        let tables = vec![table_of(Axis::Rooms, &[None, None]), table_of(Axis::Size, &[Some(1.0)])];
        let picture = svg(&growth_of(tables), "").unwrap();
        assert!(!picture.contains("\nrooms\n") && picture.contains("\nbytes of a text\n"));
        assert!(svg(&growth_of(Vec::new()), "nothing").unwrap().contains("nothing"));
    }
}
