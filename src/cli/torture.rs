//! `roundtable torture`: shows [what is done](crate::torture) while it is done, and the verdict.

use std::io::IsTerminal as _;
use std::time::Duration;

use super::args::TortureArgs;
use super::output::{say, show};
use super::render::{Style, counted, visible};
use super::stopping::Stopping;
use super::{Outcome, complain};
use crate::error::StartError;
use crate::torture::fault::Fault;
use crate::torture::report::Report;
use crate::torture::{self, Progress, TortureSettings};

/// How many characters wide the bar is.
const BAR: usize = 30;

/// Tortures; fails when a promise was broken, or when it was stopped.
pub fn run(args: &TortureArgs) -> Result<Outcome, StartError> {
    let settings = settings_of(args)?;
    let stopping = Stopping::listen()?;
    let style = Style::of_output();
    let names: Vec<&str> = settings.faults.iter().map(|fault| fault.name()).collect();
    say!(
        "Torture: design {}, {}, {}, {} s, seed {}",
        settings.design,
        counted(settings.servers as u64, "server"),
        counted(settings.people as u64, "client"),
        settings.lasts.as_secs(),
        settings.seed
    );
    say!("Faults:  {}", names.join(", "));
    for fault in Fault::ALL {
        if let (Some(why), None) = (fault.is_beyond(settings.servers), &args.faults) {
            say!("         without {}: {why}", fault.name());
        }
    }
    say!("");
    let mut show = Show { style, lasts: settings.lasts, bar: std::io::stdout().is_terminal() };
    let report =
        torture::run(&settings, stopping.signal(), &mut |at, progress| show.tell(at, &progress))?;
    let Some(report) = report else {
        show.clear();
        complain(&"stopped; nothing was judged, and nothing is left running");
        return Ok(Outcome::Failed);
    };
    show.clear();
    Ok(show.verdict(&report))
}

fn settings_of(args: &TortureArgs) -> Result<TortureSettings, StartError> {
    let servers = usize::from(args.nodes);
    let survived = || Fault::ALL.into_iter().filter(|fault| fault.is_beyond(servers).is_none());
    let mut faults = args.faults.clone().unwrap_or_else(|| survived().collect());
    faults.dedup();
    if servers == 1 {
        faults.retain(|fault| !fault.is_between_servers());
    }
    if faults.is_empty() {
        return Err(StartError::Usage(
            "one server has no network to others; choose other --faults".into(),
        ));
    }
    Ok(TortureSettings {
        design: args.design,
        servers,
        people: usize::from(args.clients),
        pause: Duration::from_millis(args.pause_ms),
        lasts: args.lasts,
        faults,
        seed: args.seed.unwrap_or_else(|| u64::from(fastrand::Rng::new().u32(..))),
        #[cfg(feature = "planted-faults")]
        flags: args.plant.iter().flat_map(|name| ["--plant".into(), name.clone()]).collect(),
        #[cfg(not(feature = "planted-faults"))]
        flags: Vec::new(),
    })
}

struct Show {
    style: Style,
    lasts: Duration,
    /// Whether a bar can be drawn over itself.
    bar: bool,
}

impl Show {
    fn tell(&mut self, at: Duration, progress: &Progress) {
        match progress {
            Progress::Started => self.line(at, "servers agree, people talk"),
            Progress::Begun(fault, what) => {
                let fault = self.style.paint("31", &format!("{:<10}", fault.name()));
                self.line(at, &format!("{fault} {}", visible(what)));
            }
            Progress::Over(suffered) => {
                let (silence, back) = (suffered.silence.as_millis(), suffered.back.as_millis());
                let text =
                    format!("{:<10} silence {silence} ms, all well {back} ms after the end", "");
                self.line(at, &self.style.paint("2", &text));
            }
            Progress::Reading => self.line(at, "everything is read at every server"),
            Progress::Tick(acked) => self.draw(at, *acked),
        }
    }

    fn line(&self, at: Duration, text: &str) {
        self.clear();
        say!("{:7.1} s  {text}", at.as_secs_f64());
    }

    fn draw(&self, at: Duration, acked: usize) {
        if !self.bar {
            return;
        }
        let done = BAR as u128 * at.as_millis() / self.lasts.as_millis().max(1);
        let done = usize::try_from(done).unwrap_or(BAR).min(BAR);
        let (bar, rest) = ("█".repeat(done), "·".repeat(BAR - done));
        show!(
            "\r{bar}{rest}  {} of {} s, {acked} acknowledged ",
            at.as_secs(),
            self.lasts.as_secs()
        );
    }

    fn clear(&self) {
        if self.bar {
            show!("\r\x1b[K");
        }
    }

    fn verdict(&self, report: &Report) -> Outcome {
        say!("\n{}", report.table());
        let Report { said, acknowledged, shown, seed, .. } = report;
        say!("{said} messages said, {acknowledged} acknowledged, {shown} shown.");
        let Some(violation) = &report.violation else {
            let text = format!("No promise was broken (seed {seed}).");
            say!("{} {text}", self.style.paint("32", "✓"));
            return Outcome::Done;
        };
        say!("{} A promise was broken: {}", self.style.paint("1;31", "✗"), visible(violation));
        if let Some(remains) = &report.remains {
            let folder = remains.folder.display();
            say!("  Seed {seed}. Logs, data and traces stay in {folder}.");
            match &remains.diagram {
                Ok((path, what)) => {
                    say!("  Diagram, {what}:");
                    let follow = remains.about.iter().map(|key| format!("#follow={key}"));
                    let nobody = remains.about.is_empty().then(String::new);
                    for follow in follow.chain(nobody) {
                        say!("    file://{}{}", path.display(), visible(&follow));
                    }
                }
                Err(why) => say!("  No diagram: {}", visible(why)),
            }
        }
        Outcome::Failed
    }
}
