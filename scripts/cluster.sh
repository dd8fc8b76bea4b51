#!/bin/sh
# Runs the servers of a cluster on this machine until ctrl-c, their logs prefixed with their names.
#
#   usage: scripts/cluster.sh PROGRAM PORT... [-- OPTION...]
#
# The first port is that of n1, and so on. The options are handed to every server. The data folders are
# $DATA/n1 and so on, ./data/n1 when DATA is not set.
set -eu

program=$1
shift
ports=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    ports="$ports $1"
    shift
done
[ $# -eq 0 ] || shift

peers=
for port in $ports; do
    peers="$peers${peers:+,}127.0.0.1:$port"
done

temp=$(mktemp -d "${TMPDIR:-/tmp}/roundtable.XXXXXX")
trap 'rm -rf "$temp"' EXIT
escape=$(printf '\033')

# Prints standard input with "n1 | " before each line, in the colour of server $1 on a terminal.
prefix() {
    label="n$1 |"
    if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
        label="$escape[3$(($1 % 6 + 1))mn$1 |$escape[0m"
    fi
    while IFS= read -r line || [ -n "$line" ]; do
        printf '%s %s\n' "$label" "$line"
    done
    printf '%s (ended)\n' "$label"
}

# With a terminal each server gets a process group of its own, so that ctrl-c reaches this script alone,
# and each server once: a second signal would end it at once.
own_groups=no
if [ -t 0 ] && [ -t 2 ] && set -m 2>/dev/null; then
    own_groups=yes
fi

servers=
printers=
number=0
for port in $ports; do
    number=$((number + 1))
    mkfifo "$temp/n$number"
    prefix "$number" <"$temp/n$number" &
    printers="$printers $!"
    "$program" server --id "n$number" --listen "127.0.0.1:$port" --peers "$peers" \
        --data "${DATA:-data}/n$number" "$@" </dev/null >"$temp/n$number" 2>&1 &
    servers="$servers $!"
    echo "n$number listens on 127.0.0.1:$port, process $!"
done
[ $own_groups = no ] || set +m # Some shells would report each job that ends.
echo "ctrl-c stops them all"

any_left() {
    for pid in $servers; do
        if kill -0 "$pid" 2>/dev/null; then return 0; fi
    done
    return 1
}

# Tells the servers to stop: at once where only this script was told ($1 = now), otherwise those that
# still run after a second, since ctrl-c may have reached them too.
stopping=no
stop() {
    trap '' INT TERM HUP
    stopping=yes
    tenths=0
    while [ "$1" != now ] && [ $tenths -lt 10 ] && any_left; do
        sleep 0.1
        tenths=$((tenths + 1))
    done
    for pid in $servers; do
        kill -INT "$pid" 2>/dev/null || true
    done
}
if [ $own_groups = yes ]; then
    trap 'stop now' INT
else
    trap 'stop later' INT
fi
trap 'stop now' TERM HUP

failed=no
for pid in $servers; do
    status=0
    wait "$pid" || status=$?
    # A signal interrupts the wait.
    while kill -0 "$pid" 2>/dev/null; do
        status=0
        wait "$pid" || status=$?
    done
    [ $status -eq 0 ] || failed=yes
done
for pid in $printers; do
    wait "$pid" || true
done
if [ $failed = yes ] && [ $stopping = no ]; then
    echo "a server failed; its last lines above say why" >&2
    exit 1
fi
