//! The guide: every command that it shows can be given, the pages follow one another, and the designs have one outline.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use roundtable::cli::args::Cli;
use roundtable::server::planted::Planted;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn pages() -> Vec<PathBuf> {
    let files = root().join("src/guide").read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect();
    pages.sort();
    pages
}

/// The commands of a page: lines of its code blocks, and code in its text that names an option or a target of `make`.
fn commands(page: &str) -> Vec<String> {
    // A line may go on behind a backslash.
    let page = page.replace("\\\n", " ");
    let mut found = Vec::new();
    let mut is_code = false;
    for line in page.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if is_code {
            found.push(line.to_string());
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            found.extend(
                spans
                    .filter(|span| span.contains(" --") || span.starts_with("make "))
                    .map(str::to_string),
            );
        }
    }
    let begins = |line: &String| {
        ["roundtable ", "make ", "cargo "].iter().any(|word| line.starts_with(word))
    };
    found.retain(begins);
    found
}

/// Whether `line` is a command that `roundtable` takes. A fault is planted only in builds that have any: it is looked up.
fn check_roundtable(line: &str) {
    let command = line.split(" | ").next().unwrap();
    let mut words: Vec<&str> = command.split_whitespace().collect();
    if let Some(at) = words.iter().position(|word| *word == "--plant") {
        let all = [&Planted::ALL[..], &Planted::SEQUENCER, &Planted::ORDERING, &Planted::RAFT];
        let name = words[at + 1];
        assert!(all.concat().iter().any(|fault| format!("{fault:?}") == name), "{line}: no {name}");
        words.drain(at..at + 2);
    }
    if let Err(error) = Cli::try_parse_from(words) {
        panic!("{line}\n{error}");
    }
}

fn check_make(line: &str, makefile: &str) {
    for word in line.split_whitespace().skip(1) {
        let defined = match word.split_once('=') {
            Some((variable, _)) => format!("\n{variable} = "),
            None => format!("\n{word}: "),
        };
        assert!(makefile.contains(&defined), "{line}: the Makefile has no {word}");
    }
}

fn check_cargo(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    if let Some(at) = words.iter().position(|word| *word == "--example") {
        let place = root().join("examples").join(words[at + 1]);
        assert!(place.is_dir() || place.with_extension("rs").is_file(), "{line}");
    } else if let Some((_, arguments)) = line.split_once(" -- ") {
        check_roundtable(&format!("roundtable {arguments}"));
    }
}

#[test]
fn every_command_can_be_given() {
    let makefile = read("Makefile");
    let mut checked = BTreeSet::new();
    for path in pages() {
        for line in commands(&read(&path)) {
            match line.split(' ').next().unwrap() {
                "roundtable" => check_roundtable(&line),
                "make" => check_make(&line, &makefile),
                _ => check_cargo(&line),
            }
            checked.insert(line);
        }
    }
    assert!(checked.len() > 25, "only {checked:?}");
}

#[test]
fn ten_exercises_have_a_command_and_a_question_each() {
    let page = read("src/guide/exercises.md");
    let exercises: Vec<&str> = page.split("\n# ").skip(1).collect();
    assert_eq!(exercises.len(), 10);
    for (number, exercise) in (1..).zip(exercises) {
        assert!(exercise.starts_with(&format!("{number}. ")), "{exercise}");
        assert!(!commands(exercise).is_empty() || exercise.contains("git diff"), "{exercise}");
        assert!(exercise.contains("\n*Question*: "), "{exercise}");
    }
}

#[test]
fn each_design_has_the_same_outline() {
    let outline = ["Idea", "One message", "Promise", "Price", "What breaks it", "What is left out"];
    for design in ["ring", "sequencer", "raft"] {
        let page = read(format!("src/guide/{design}.md"));
        let headings = page.lines().filter_map(|line| line.strip_prefix("# "));
        let common: Vec<&str> = headings.filter(|heading| outline.contains(heading)).collect();
        assert_eq!(common, outline, "{design}");
    }
}

#[test]
fn the_pages_follow_one_another() {
    let source: String = read("src/guide.rs").split_whitespace().collect::<Vec<_>>().join(" ");
    // Such as `page!( nodes, [include_str!("guide/nodes.md")], "algorithms", "shell" );`; the first one is written out.
    let mut pages = vec![("values".to_string(), vec!["algorithms".to_string()])];
    for call in source.split("page!(").skip(1) {
        let (name, rest) = call.trim().split_once(',').unwrap();
        let ways = rest.split_once("],").or_else(|| rest.split_once("] ,")).unwrap().1;
        let ways = ways.split(");").next().unwrap().split('"').skip(1).step_by(2);
        pages.push((name.to_string(), ways.map(str::to_string).collect()));
    }
    let table = read("src/guide/reading.md");
    let mut last = 0;
    for (at, (name, ways)) in pages.iter().enumerate() {
        let near = [at.checked_sub(1), Some(at + 1)].into_iter().flatten();
        let around: Vec<&String> =
            near.filter_map(|at| pages.get(at)).map(|(name, _)| name).collect();
        assert_eq!(ways.iter().collect::<Vec<_>>(), around, "beside {name}");
        let place = table.find(&format!("[`{name}`]")).unwrap_or_else(|| panic!("{name}"));
        assert!(place > last, "{name} stands elsewhere in the reading order");
        last = place;
    }
    assert_eq!(pages.len(), 12);
}
