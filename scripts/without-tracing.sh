#!/bin/sh
# Builds the last commit without what `--trace` needs in a server, to measure what that costs while it is off: run the program that this
# prints and the usual release build in turn, in pairs, under the same load, and compare medians.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${CARGO_TARGET_DIR:-$root/target}/without-tracing
rm -rf "$folder/source"
mkdir -p "$folder/source"
git -C "$root" archive HEAD | tar -x -C "$folder/source"
cd "$folder/source"

# edit FILE PERL-EXPRESSION: fails when the expression changes nothing.
edit() {
    cp "$1" "$1.before"
    perl -0pi -e "$2" "$1"
    if cmp -s "$1" "$1.before"; then
        echo "$1: nothing to take out; has it moved?" >&2
        exit 1
    fi
    rm "$1.before"
}

# A step: no tracer around the connections, nothing at its end.
edit src/server/shell/mod.rs 's/\n *let traced = self\.trace[^;]*;//'
edit src/server/shell/mod.rs 's/cm: traced\.[^\n]*/cm: &*self.cm,/'
edit src/server/shell/mod.rs 's/\n *if let Some\(trace\) = &self\.trace \{\n *trace\.end\(&node\);\n *\}//'
# A message, a tick, a sync, a lost connection: nobody is asked who writes it down.
edit src/server/server_node.rs 's/let Some\(trace\) = step\.cm\.trace\(\) else \{ return (self\.take_message\(conn, msg, step\)) \};.*?\n    \}/$1\n    }/s'
edit src/server/server_node.rs 's/\n *if let Some\(trace\) = step\.cm\.trace\(\) \{[^}]*\}//g'
edit src/server/step.rs 's/(pub fn trace_log\(&self, )event(: &LogEvent\) \{).*?\n    \}/$1_event$2}/s'
# The name of a frame is not looked for.
edit src/domain/message.rs 's/#\[serde\(default, skip_serializing\)\]\n( *pub trace)/#[serde(skip)]\n$1/'

cargo build --release --quiet --locked --target-dir "$folder"
echo "$folder/release/roundtable"
