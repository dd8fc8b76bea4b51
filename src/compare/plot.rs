//! The figures as a picture: one panel for each of the measures that differ most, a bar for each design.

use plotters::coord::ranged1d::SegmentValue;
use plotters::prelude::*;

use super::figures::Figures;

/// Width and height of the picture, in pixels.
const SIZE: (u32, u32) = (1080, 560);
/// Colours that are told apart by people who see fewer, one for each design.
const COLOURS: [RGBColor; 3] =
    [RGBColor(0, 114, 178), RGBColor(230, 159, 0), RGBColor(0, 158, 115)];

/// A panel: its title and the measure.
type Panel = (&'static str, fn(&Figures) -> f64);

const PANELS: [Panel; 6] = [
    ("acknowledged a second, full load", |figures| figures.throughput),
    ("ACK in quiet talk, median, ms", |figures| figures.ack.p50_ms),
    ("server messages a chat message", |figures| figures.server_messages),
    ("syncs a chat message, full load", |figures| figures.loaded_syncs),
    ("silence after a killed leader, ms", |figures| figures.silence_ms as f64),
    ("equal again after a partition, ms", |figures| figures.heal_ms as f64),
];

/// The picture as SVG. Fails when something cannot be drawn, with the reason.
pub fn svg(all: &[Figures]) -> Result<String, String> {
    let mut text = String::new();
    draw(all, &mut text).map_err(|error| format!("cannot draw the figures: {error}"))?;
    Ok(text)
}

fn draw(all: &[Figures], text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, (title, measure)) in root.split_evenly((2, 3)).iter().zip(PANELS) {
        let highest = all.iter().map(measure).fold(0.0, f64::max).max(1e-3);
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(26)
            .y_label_area_size(56)
            .build_cartesian_2d((0..all.len()).into_segmented(), 0.0..highest * 1.2)?;
        let name = |place: &SegmentValue<usize>| match place {
            SegmentValue::CenterOf(place) => all.get(*place).map(|figures| figures.design.clone()),
            SegmentValue::Exact(_) | SegmentValue::Last => None,
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .y_labels(5)
            .x_label_formatter(&|place| name(place).unwrap_or_default())
            .label_style(("sans-serif", 13))
            .draw()?;
        for (place, figures) in all.iter().enumerate() {
            let (value, colour) = (measure(figures), COLOURS[place % COLOURS.len()]);
            let from = (SegmentValue::Exact(place), 0.0);
            let to = (SegmentValue::Exact(place + 1), value);
            let mut bar = Rectangle::new([from, to], colour.filled());
            bar.set_margin(0, 0, 16, 16);
            chart.draw_series([bar])?;
            let number = if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") };
            let style = ("sans-serif", 13).into_font().color(&BLACK);
            let style = style.pos(plotters::style::text_anchor::Pos::new(
                plotters::style::text_anchor::HPos::Center,
                plotters::style::text_anchor::VPos::Bottom,
            ));
            let above = (SegmentValue::CenterOf(place), value + highest * 0.02);
            chart.draw_series([Text::new(number, above, style)])?;
        }
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Design;

    #[test]
    fn every_panel_has_its_title_and_every_design_its_name() {
        let mut all: Vec<Figures> = Design::ALL.into_iter().map(Figures::new).collect();
        all[1].throughput = 12_345.0;
        let picture = svg(&all).unwrap();
        for (title, _) in PANELS {
            assert!(picture.contains(title), "{title}");
        }
        for design in Design::ALL {
            assert_eq!(picture.matches(&format!("\n{design}\n")).count(), PANELS.len(), "{design}");
        }
        assert!(picture.contains("12345"));
    }
}
