//! The figures as a picture: messages, delays, and how long Raft waits, against the number of servers.

use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::{Row, TIMEOUTS, ring_bound};

/// Width and height, in pixels.
const SIZE: (u32, u32) = (1080, 400);
/// Told apart by people who see fewer colours, on white and on black.
const RING: RGBColor = RGBColor(52, 138, 210);
const BULLY: RGBColor = RGBColor(224, 145, 0);
const RAFT: RGBColor = RGBColor(0, 160, 120);
/// Turned into the colour of the text around the picture.
const INK: RGBColor = RGBColor(1, 2, 3);

/// Where the names of lines begin, behind the largest cluster.
const END: f64 = 71.0;
const DECADES: [f64; 5] = [1.0, 10.0, 100.0, 1000.0, 10_000.0];

/// A line: its colour, whether it is theory (thin), and its points.
type Line = (RGBColor, bool, Vec<(f64, f64)>);

struct Panel {
    title: &'static str,
    lines: Vec<Line>,
    /// What stands in the picture, where, and in which colour.
    names: Vec<(&'static str, RGBColor, (f64, f64))>,
    /// What stands on the axis at the left.
    marks: &'static [f64],
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
            ("Raft, all at once", RAFT, (END, 16_400.0)),
            ("Bully, worst", BULLY, (END, 5_200.0)),
            ("ring, bound", RING, (END, 2_900.0)),
            ("ring, worst", RING, (END, 1_340.0)),
            ("ring, best", RING, (END, 520.0)),
            ("Raft, one", RAFT, (END, 270.0)),
            ("Bully, best", BULLY, (END, 63.0)),
        ],
        marks: &DECADES,
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
            ("Raft, all at once", RAFT, (END, 1_015.0)),
            ("ring, its bound", RING, (END, 253.0)),
            ("Raft, one", RAFT, (END, 5.0)),
            ("Bully, worst", BULLY, (END, 2.0)),
            ("Bully, best", BULLY, (END, 1.0)),
        ],
        marks: &DECADES,
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
            ("thick: the middle run, thin: the longest", INK, (3.3, highest * 1.3)),
            ("timeout 10 delays", BULLY, (3.3, highest * 0.98)),
            ("timeout 100 delays", RING, (3.3, highest * 0.74)),
            ("timeout 1000 delays", RAFT, (3.3, highest * 0.56)),
        ],
        marks: &[1.0, 2.0, 5.0, 10.0],
        highest: highest * 1.8,
    }
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    rows: &[Row],
    panel: &Panel,
) -> Result<(), Box<dyn std::error::Error>> {
    let sizes: Vec<f64> = rows.iter().map(|row| row.servers as f64).collect();
    let lowest = 0.8;
    // The names at the end of lines need room.
    let widest = if panel.names.iter().any(|(_, _, (x, _))| *x >= END) { 260.0 } else { 75.0 };
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, ("sans-serif", 19, &INK))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(52)
        .build_cartesian_2d(
            (2.7..widest).log_scale().with_key_points(sizes),
            (lowest..panel.highest).log_scale().with_key_points(panel.marks.to_vec()),
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
        .y_label_formatter(&|value| format!("{value:.0}"))
        .label_style(("sans-serif", 15, &INK))
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
        let style = ("sans-serif", 15).into_font().color(colour);
        let style = style.pos(Pos::new(HPos::Left, VPos::Center));
        chart.draw_series([Text::new(*name, *place, style)])?;
    }
    Ok(())
}
