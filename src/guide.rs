#![doc = include_str!("guide/reading.md")]
//!
//! ---
//!
//! [values](crate::guide::values) →

#[doc(hidden)]
/// A page of the guide: its parts, then the way to the page before it and to the one after.
macro_rules! page {
    ($name:ident, [$($part:expr),+ $(,)?], $previous:literal $(, $next:literal)?) => {
        $(#[doc = $part])+
        #[doc = ""]
        #[doc = "---"]
        #[doc = ""]
        #[doc = concat!("← [", $previous, "](crate::guide::", $previous, ") · [the guide](crate::guide)")]
        $(#[doc = concat!(" · [", $next, "](crate::guide::", $next, ") →")])?
        pub mod $name {}
    };
}

#[doc = include_str!("guide/values.md")]
///
/// ---
///
/// [the guide](crate::guide) · [algorithms](crate::guide::algorithms) →
pub mod values {}

page!(
    algorithms,
    [
        include_str!("guide/algorithms.md"),
        "```text",
        include_str!("../tests/scripts/bully/no_higher_peers"),
        "```"
    ],
    "values",
    "nodes"
);
page!(nodes, [include_str!("guide/nodes.md")], "algorithms", "shell");
page!(shell, [include_str!("guide/shell.md")], "nodes", "ring");
page!(ring, [include_str!("guide/ring.md")], "shell", "sequencer");
page!(sequencer, [include_str!("guide/sequencer.md")], "ring", "raft");
page!(raft, [include_str!("guide/raft.md")], "sequencer", "elections");
page!(
    elections,
    [
        include_str!("guide/elections.md"),
        include_str!("guide/elections.svg"),
        "",
        include_str!("guide/elections-seen.md"),
        "```text",
        include_str!("guide/elections.txt"),
        "```"
    ],
    "raft",
    "growth"
);
page!(
    growth,
    [
        include_str!("guide/growth.md"),
        include_str!("guide/growth.svg"),
        "",
        include_str!("guide/growth-seen.md"),
        "```text",
        include_str!("guide/growth.txt"),
        "```"
    ],
    "elections",
    "scenarios"
);
page!(
    scenarios,
    [
        include_str!("guide/scenarios.md"),
        "\n# The leader crashes\n\n```text",
        include_str!("../tests/scripts/scenarios/leader_crashes"),
        "```",
        "\n# A follower crashes\n\n```text",
        include_str!("../tests/scripts/scenarios/follower_crashes"),
        "```",
        "\n# The network is cut in two\n\n```text",
        include_str!("../tests/scripts/scenarios/network_partition"),
        "```",
        "\n# A message is lost with its leader\n\n```text",
        include_str!("../tests/scripts/scenarios/message_loss"),
        "```",
        "\n# Failover, from the client's side\n\n```text",
        include_str!("../tests/scripts/scenarios/failover_flow"),
        "```",
        "",
        include_str!("guide/scenarios-differ.md")
    ],
    "growth",
    "trace"
);
page!(trace, [include_str!("guide/trace.md")], "scenarios", "exercises");
page!(exercises, [include_str!("guide/exercises.md")], "trace");
