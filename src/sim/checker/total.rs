//! One order for all: every view of a room shows a part of one sequence, without a hole.
//!
//! ```text
//!   the order:   m1 m2 m3 m4 m5      fresh readers see all of it
//!   a view:         m2 m3 m4         from where it came in to where it left: nothing is skipped
//! ```
//!
//! Who is next to whom in any view is an edge; one order exists when the edges make no circle. What fresh readers saw is
//! that order, and names the holes.

use std::collections::{BTreeMap, BTreeSet};

use super::texts::{Text, Texts};
use super::view::View;
use super::{Checked, Violation};

/// Checks that `views`, among them those of the final `readers`, agree on one order in each room.
pub(super) fn check(views: &[View], readers: &[View], texts: &Texts) -> Checked {
    let rooms: BTreeSet<&str> = views.iter().map(|view| view.room).collect();
    for room in rooms {
        let of_room = || views.iter().filter(|view| view.room == room && !view.gap);
        check_no_circle(room, of_room(), texts)?;
        let of_readers = readers.iter().filter(|view| view.room == room);
        let Some(reader) = of_readers.min_by_key(|view| view.starts) else { continue };
        for view in of_room() {
            check_no_hole(view, reader, texts)?;
        }
    }
    Ok(())
}

/// Takes away, again and again, a message that no other one has to precede; what is left is a circle.
fn check_no_circle<'a>(
    room: &str,
    views: impl Iterator<Item = &'a View<'a>>,
    texts: &Texts,
) -> Checked {
    let mut after: BTreeMap<Text, BTreeSet<Text>> = BTreeMap::new();
    for view in views {
        for pair in view.shown.windows(2) {
            after.entry(pair[0]).or_default().insert(pair[1]);
        }
    }
    let mut before: BTreeMap<Text, usize> = after.keys().map(|text| (*text, 0)).collect();
    for text in after.values().flatten() {
        *before.entry(*text).or_default() += 1;
    }
    let mut free: Vec<Text> =
        before.iter().filter(|(_, count)| **count == 0).map(|(text, _)| *text).collect();
    while let Some(text) = free.pop() {
        before.remove(&text);
        for next in after.get(&text).into_iter().flatten() {
            if let Some(count) = before.get_mut(next) {
                *count -= 1;
                if *count == 0 {
                    free.push(*next);
                }
            }
        }
    }
    if before.is_empty() {
        return Ok(());
    }
    let circle = shortest_circle(&before, &after);
    let names: Vec<&str> = circle.iter().map(|text| texts[*text].text).collect();
    let detail = format!("no one order of {room}: views show {}", names.join(" before "));
    Err(Violation::new("order", detail, &names))
}

/// A circle among the messages that are `left`, the first one also at its end.
fn shortest_circle(
    left: &BTreeMap<Text, usize>,
    after: &BTreeMap<Text, BTreeSet<Text>>,
) -> Vec<Text> {
    let circle_from = |start: Text| {
        let mut came_from: BTreeMap<Text, Text> = BTreeMap::new();
        let mut edge = vec![start];
        while !edge.is_empty() && !came_from.contains_key(&start) {
            let mut further = Vec::new();
            for text in edge {
                for next in after.get(&text).into_iter().flatten() {
                    if left.contains_key(next) && !came_from.contains_key(next) {
                        came_from.insert(*next, text);
                        further.push(*next);
                    }
                }
            }
            edge = further;
        }
        let mut circle = vec![start];
        let mut at = *came_from.get(&start)?;
        while at != start {
            circle.push(at);
            at = *came_from.get(&at)?;
        }
        circle.push(start);
        circle.reverse();
        Some(circle)
    };
    left.keys().filter_map(|start| circle_from(*start)).min_by_key(Vec::len).unwrap_or_default()
}

/// What the view shows stands side by side in the order that the final reader saw.
fn check_no_hole(view: &View, reader: &View, texts: &Texts) -> Checked {
    let mut last: Option<(u32, Text)> = None;
    for text in &view.shown {
        // What the reader does not see is lost, and another check's matter.
        let Some(place) = reader.place_of(*text) else { continue };
        let is_hole = |before: u32| {
            let between = reader.shown.get(before as usize..place as usize - 1);
            // Also when it goes back.
            between.is_none_or(|between| {
                between.iter().any(|text| !texts[*text].is_forgotten(view.starts))
            })
        };
        if let Some((before, previous)) = last.filter(|(before, _)| is_hole(*before)) {
            let (name, room) = (view.name(), view.room);
            let (text, previous) = (texts[*text].text, texts[previous].text);
            let detail = format!(
                "{name} was shown {text} next to {previous} in {room}: number {place} next to {before}"
            );
            return Err(Violation::new("order", detail, &[text, previous, name]));
        }
        last = Some((place, *text));
    }
    Ok(())
}
