//! The figures as a picture: one panel for each of the measures that differ most, a bar for each design.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::figures::Figures;

/// Width and height of the picture, in pixels.
const SIZE: (u32, u32) = (1160, 620);
/// Rows and columns of panels.
const GRID: (usize, usize) = (2, 4);
/// Colours that are told apart by people who see fewer, one for each design.
const COLOURS: [RGBColor; 3] =
    [RGBColor(0, 114, 178), RGBColor(230, 159, 0), RGBColor(0, 158, 115)];

/// A panel: its title and the measure.
type Panel = (&'static str, fn(&Figures) -> f64);

const PANELS: [Panel; 8] = [
    ("acknowledged a second, full load", |figures| figures.throughput),
    ("ACK in quiet talk, median, ms", |figures| figures.ack.p50_ms),
    ("ACK in quiet talk, p99, ms", |figures| figures.ack.p99_ms),
    ("server messages a chat message", |figures| figures.server_messages),
    ("syncs a chat message, quiet talk", |figures| figures.syncs),
    ("silence after a killed leader, ms", |figures| figures.silence_ms as f64),
    ("acknowledged by a cut-off leader", |figures| figures.cut_off_acks as f64),
    ("equal again after a partition, ms", |figures| figures.heal_ms as f64),
];

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// The picture as SVG, with `title` above. Fails when something cannot be drawn, with the reason.
pub fn svg(all: &[Figures], title: &str) -> Result<String, String> {
    let mut text = String::new();
    draw(all, title, &mut text).map_err(|error| format!("cannot draw the figures: {error}"))?;
    Ok(text)
}

fn draw(all: &[Figures], title: &str, text: &mut String) -> Drawn {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(title, ("sans-serif", 20))?;
    for (area, panel) in root.split_evenly(GRID).iter().zip(PANELS) {
        draw_panel(all, area, panel)?;
    }
    root.present()?;
    Ok(())
}

fn draw_panel(
    all: &[Figures],
    area: &DrawingArea<SVGBackend, Shift>,
    (title, measure): Panel,
) -> Drawn {
    let highest = all.iter().map(measure).fold(0.0, f64::max);
    // Nothing at all still needs an axis.
    let top = if highest > 0.0 { highest * 1.15 } else { 1.0 };
    let area = area.titled(title, ("sans-serif", 15))?;
    // The design of place n stands at n + 0.5.
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .x_label_area_size(24)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..all.len() as f64, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .light_line_style(TRANSPARENT)
        .y_labels(5)
        .y_label_formatter(&|value| on_axis(*value))
        .label_style(("sans-serif", 13))
        .draw()?;
    let style = |vertical| {
        let style = ("sans-serif", 13).into_font().color(&BLACK);
        style.pos(Pos::new(HPos::Center, vertical))
    };
    let corner = area.get_base_pixel();
    for (place, figures) in all.iter().enumerate() {
        let (value, middle) = (measure(figures), place as f64 + 0.5);
        let corners = [(middle - 0.3, 0.0), (middle + 0.3, value)];
        chart.draw_series([Rectangle::new(corners, COLOURS[place % COLOURS.len()].filled())])?;
        let above = (middle, value + top * 0.02);
        chart.draw_series([Text::new(in_short(value), above, style(VPos::Bottom))])?;
        let (x, y) = chart.backend_coord(&(middle, 0.0));
        let below = (x - corner.0, y - corner.1 + 8);
        area.draw(&Text::new(figures.design.clone(), below, style(VPos::Top)))?;
    }
    Ok(())
}

/// A figure above its bar.
fn in_short(value: f64) -> String {
    match value {
        0.0 => "0".into(),
        ..0.1 => format!("{value:.3}"),
        ..10.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A figure at the axis: as many places as it needs.
fn on_axis(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Design;

    #[test]
    fn every_panel_has_its_title_and_every_design_its_name() {
        let mut all: Vec<Figures> = Design::ALL.into_iter().map(Figures::new).collect();
        all[1].throughput = 12_345.0;
        let picture = svg(&all, "three servers").unwrap();
        assert!(picture.contains("three servers"));
        for (title, _) in PANELS {
            assert!(picture.contains(title), "{title}");
        }
        for design in Design::ALL {
            assert_eq!(picture.matches(&format!("\n{design}\n")).count(), PANELS.len(), "{design}");
        }
        assert!(picture.contains("12345"));
    }

    #[test]
    fn one_design_can_be_drawn() {
        let picture = svg(&[Figures::new(Design::Raft)], "one").unwrap();
        assert_eq!(picture.matches("\nraft\n").count(), PANELS.len());
    }

    #[test]
    fn figures_are_as_long_as_they_need() {
        assert_eq!([0.0, 0.021, 2.34, 854.2].map(in_short), ["0", "0.021", "2.3", "854"]);
        assert_eq!([0.0, 0.02, 2.5, 15000.0].map(on_axis), ["0", "0.02", "2.5", "15000"]);
    }
}
