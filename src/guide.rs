#![doc = include_str!("guide/reading.md")]

pub mod ring {
    #![doc = include_str!("guide/ring.md")]
}

pub mod sequencer {
    #![doc = include_str!("guide/sequencer.md")]
}

pub mod raft {
    #![doc = include_str!("guide/raft.md")]
}

pub mod trace {
    #![doc = include_str!("guide/trace.md")]
}
