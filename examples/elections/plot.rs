//! The figures as a picture: messages, delays, and how long Raft waits, against the number of servers.

use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;

use crate::{Row, TIMEOUTS, ring_bound};

/// Width and height, in pixels.
const SIZE: (u32, u32) = (1080, 400);
/// Told apart by people who see fewer colours, on white and on black.
const RING: RGBColor = RGBColor(52, 138, 210);
const BULLY: RGBColor = RGBColor(224, 145, 0);
const RAFT: RGBColor = RGBColor(0, 160, 120);
/// Turned into the colour of the text around the picture.
const INK: RGBColor = RGBColor(1, 2, 3);

/// A line: its colour, whether it is theory (thin), and its points.
type Line = (RGBColor, bool, Vec<(f64, f64)>);

struct Panel {
    title: &'static str,
    lines: Vec<Line>,
    /// What stands in the picture, where, and in which colour.
    names: Vec<(&'static str, RGBColor, (f64, f64))>,
    highest: f64,
}

/// The picture as SVG, in the colour of the text around it where it has none of its own, so that it is seen on any ground.
pub(crate) fn svg(rows: &[Row]) -> Result<String, Box<dyn std::error::Error>> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let panels = [messages(rows), delays(rows), waits(rows)];
        for (area, panel) in root.split_evenly((1, 3)).iter().zip(panels) {
            draw(area, rows, &panel)?;
        }
        root.present()?;
    }
    let ink = format!("#{:02X}{:02X}{:02X}", INK.0, INK.1, INK.2);
    let sized = format!("<svg width=\"{}\" height=\"{}\"", SIZE.0, SIZE.1);
    let fluid = "<svg role=\"img\" aria-label=\"Messages and delays of elections against the number of servers\" \
                 style=\"max-width:100%;height:auto\"";
    Ok(text.replace(&ink, "currentColor").replace(&sized, fluid))
}

fn series(rows: &[Row], measure: impl Fn(&Row) -> u64) -> Vec<(f64, f64)> {
    rows.iter().map(|row| (row.servers as f64, measure(row) as f64)).collect()
}

fn messages(rows: &[Row]) -> Panel {
    Panel {
        title: "messages",
        lines: vec![
            (RING, true, series(rows, |row| ring_bound(row.servers as u64))),
            (RING, false, series(rows, |row| row.ring[0].messages)),
            (RING, false, series(rows, |row| row.ring[2].messages)),
            (BULLY, false, series(rows, |row| row.bully[0].messages)),
            (BULLY, false, series(rows, |row| row.bully[1].messages)),
            (RAFT, false, series(rows, |row| row.raft[0].messages)),
            (RAFT, false, series(rows, |row| row.raft[1].messages)),
        ],
        names: vec![
            ("Raft, all at once", RAFT, (5.0, 9000.0)),
            ("bound of the ring", RING, (3.1, 420.0)),
            ("Bully, worst", BULLY, (20.0, 1900.0)),
            ("ring, worst", RING, (33.0, 720.0)),
            ("ring, best", RING, (33.0, 430.0)),
            ("Raft, one", RAFT, (33.0, 118.0)),
            ("Bully, best", BULLY, (33.0, 20.0)),
        ],
        highest: 40_000.0,
    }
}

fn delays(rows: &[Row]) -> Panel {
    let bound = |row: &Row| 2 * (row.servers.next_power_of_two() - 1) + 2 * row.servers;
    Panel {
        title: "delays until all follow",
        lines: vec![
            (RING, true, series(rows, |row| bound(row) as u64)),
            (RING, false, series(rows, |row| row.ring[1].delays)),
            (BULLY, false, series(rows, |row| row.bully[0].delays)),
            (BULLY, false, series(rows, |row| row.bully[1].delays)),
            (RAFT, false, series(rows, |row| row.raft[0].delays)),
            (RAFT, false, series(rows, |row| row.raft[1].delays)),
        ],
        names: vec![
            ("Raft, all at once, timeout 1000", RAFT, (5.0, 2400.0)),
            ("ring, and its bound", RING, (4.2, 90.0)),
            ("Raft, one", RAFT, (20.0, 7.2)),
            ("Bully, worst", BULLY, (20.0, 2.9)),
            ("Bully, best", BULLY, (20.0, 1.45)),
        ],
        highest: 40_000.0,
    }
}

fn waits(rows: &[Row]) -> Panel {
    let in_timeouts = |which: usize, longest: bool| {
        let points = rows.iter().map(|row| {
            let (middle, most) = row.waits[which];
            let wait = if longest { most } else { middle };
            (row.servers as f64, wait as f64 / f64::from(TIMEOUTS[which]))
        });
        points.collect::<Vec<_>>()
    };
    let colours = [BULLY, RING, RAFT];
    let middles = (0..3).map(|which| (colours[which], false, in_timeouts(which, false)));
    let longest = (0..3).map(|which| (colours[which], true, in_timeouts(which, true)));
    let lines: Vec<Line> = middles.chain(longest).collect();
    let highest = lines.iter().flat_map(|line| &line.2).map(|point| point.1).fold(1.0, f64::max);
    Panel {
        title: "Raft: timeouts without a leader",
        lines,
        names: vec![
            ("timeout 10 delays", BULLY, (3.3, highest * 0.9)),
            ("timeout 100", RING, (3.3, highest * 0.62)),
            ("timeout 1000", RAFT, (3.3, highest * 0.42)),
            ("thick: the middle run, thin: the longest", INK, (3.3, highest * 1.3)),
        ],
        highest: highest * 1.8,
    }
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    rows: &[Row],
    panel: &Panel,
) -> Result<(), Box<dyn std::error::Error>> {
    let sizes: Vec<f64> = rows.iter().map(|row| row.servers as f64).collect();
    let lowest = if panel.highest > 1000.0 { 0.7 } else { 0.8 };
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, ("sans-serif", 16, &INK))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(52)
        .build_cartesian_2d(
            (2.7..75.0).log_scale().with_key_points(sizes),
            (lowest..panel.highest).log_scale(),
        )?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.15))
        .axis_style(INK.mix(0.6))
        .x_desc("servers")
        .x_labels(rows.len())
        .x_label_formatter(&|n| format!("{n:.0}"))
        .y_label_formatter(&|value| {
            if *value < 1.0 { format!("{value:.1}") } else { format!("{value:.0}") }
        })
        .label_style(("sans-serif", 12, &INK))
        .draw()?;
    for (colour, is_theory, points) in &panel.lines {
        let style = colour.mix(if *is_theory { 0.7 } else { 1.0 });
        let width = if *is_theory { 1 } else { 2 };
        chart.draw_series([PathElement::new(points.clone(), style.stroke_width(width))])?;
        if !is_theory {
            let dots = points.iter().map(|point| Circle::new(*point, 3, colour.filled()));
            chart.draw_series(dots)?;
        }
    }
    for (name, colour, place) in &panel.names {
        let style = ("sans-serif", 13).into_font().color(colour);
        chart.draw_series([Text::new(*name, *place, style)])?;
    }
    Ok(())
}
