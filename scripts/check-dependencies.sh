#!/bin/sh
# Fails when an async runtime is among the dependencies: this project runs on plain threads.
set -eu

tree=$(cargo tree --locked --edges normal,build,dev --prefix none --format '{p}')
# Cargo.lock also lists what only other systems would build.
locked=$(sed -n 's/^name = "\(.*\)"$/\1/p' Cargo.lock)
found=$(printf '%s\n%s\n' "$tree" "$locked" |
    awk '{ print $1 }' | sort -u |
    grep -E '^(tokio|tokio-.*|async-std|async-io|async-executor|smol|mio|futures-executor)$' || true)
if [ -n "$found" ]; then
    echo "an async runtime is among the dependencies:" $found >&2
    exit 1
fi
echo "dependencies: $(printf '%s\n' "$tree" | awk '{ print $1 }' | sort -u | wc -l | tr -d ' ') packages, no async runtime"
