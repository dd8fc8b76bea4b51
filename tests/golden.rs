//! Plays: golden scripts in `tests/scripts`, one folder for each algorithm, one script for each happening.
//!
//! A script reads as a story: what to look for, then turn by turn what is done and, below `---`, what
//! follows: changes of state and messages sent. The transcripts are written by the runners in `tests/golden`:
//! `UPDATE_GOLDENFILES=1 cargo test --test golden`, then read the difference and be able to explain each line.

use std::error::Error;
use std::path::Path;

mod golden {
    pub(crate) mod election;
    pub(crate) mod failure_detector;
    pub(crate) mod metadata;
    pub(crate) mod wire;
}

/// What a turn shows, or why the script cannot go on.
type Shown = Result<String, Box<dyn Error>>;

/// Plays every script of a folder of `tests/scripts`, each with a new runner.
fn play<R: goldenscript::Runner + Default>(folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(folder);
    let files = std::fs::read_dir(&folder).expect("a folder of scripts");
    let mut scripts: Vec<_> = files.map(|file| file.expect("a script").path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "no scripts in {}", folder.display());
    for script in scripts {
        println!("plays {}", script.display());
        goldenscript::run(&mut R::default(), &script).expect("the script can be played");
    }
}

#[test]
fn elections() {
    play::<golden::election::Runner>("election");
}

#[test]
fn failure_detectors() {
    play::<golden::failure_detector::Runner>("failure_detector");
}

#[test]
fn maps_of_rooms() {
    play::<golden::metadata::Runner>("metadata");
}
