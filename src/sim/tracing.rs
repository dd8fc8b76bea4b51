//! The traces of simulated servers: the same events as of real ones, in virtual time, with the faults that were made.

use super::agenda::Micros;
use super::machine::Machine;
use crate::domain::{Incarnation, NodeId};
use crate::trace::entry::{Numbering, What};
use crate::trace::event::{FORMAT, Kind, Run};
use crate::trace::writer::Kept;
use crate::trace::{TraceEvent, Tracer};

/// What the servers of one run traced.
#[derive(Clone, Debug)]
pub(super) struct Tracing {
    kept: Kept,
    run: Run,
}

impl Tracing {
    /// Nothing yet, of the run `seed`.
    pub(super) fn new(seed: u64, design: &str, election: String) -> Self {
        let run = Run {
            format: FORMAT,
            cluster: format!("sim, seed {seed}"),
            design: design.into(),
            election,
            ..Run::default()
        };
        Self { kept: Kept::default(), run }
    }

    /// `node` starts its life `life` at `now`.
    pub(super) fn start(&self, node: &NodeId, life: &Incarnation, now: Micros) -> Tracer {
        let run = Run { life: life.to_string(), ..self.run.clone() };
        Tracer::new(node, life, run, now, Box::new(self.kept.clone()))
    }

    /// Something is done to `machine` from outside, or to the way from it to `peer`. Only who runs can write it down.
    pub(super) fn note(
        &self,
        machine: &Machine,
        now: Micros,
        kind: Kind,
        peer: Option<&NodeId>,
        say: impl FnOnce() -> String,
    ) {
        if machine.running.is_some() {
            let what = What::Suffered(kind, peer.cloned(), say());
            self.kept.note(&machine.id, now, what);
        }
    }

    /// What was traced.
    pub(super) fn into_events(self) -> Vec<TraceEvent> {
        let mut numbering = Numbering::default();
        self.kept.take().into_iter().map(|entry| numbering.event(entry)).collect()
    }
}
