#!/usr/bin/env bash
# Three servers in containers: one is cut off the network, another is killed, the talk goes on, nothing that was
# acknowledged is lost. Then the servers of k8s.yaml, as far as they can be had without Kubernetes.
#
#   usage: deploy/test.sh PROGRAM          DESIGN=ring deploy/test.sh PROGRAM is another design than raft
#
# Needs a Docker engine and docker compose. It pulls the image that the Dockerfile runs on, or, where no registry is in
# reach, makes it with Debian's `debootstrap` (as root) and gives it the name that the Dockerfile uses; it stays, for
# the next time. The image that the Dockerfile compiles with is not used: in its place stands one whose `cargo` hands over
# PROGRAM, which has to be compiled for Debian 12. Everything else is the Dockerfile as it is.
#
# All that it makes has its own name, roundtable-test-PID, and goes at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

program=$(realpath "${1:?which program? usage: deploy/test.sh PROGRAM}")
design=${DESIGN:-raft}
project=roundtable-test-$$
base=$(sed -n 's/^ARG BASE_IMAGE=//p' deploy/Dockerfile)
temp=$(mktemp -d)
# How long anything may take, in seconds: the machine may be busy.
patience=${PATIENCE:-90}
# What was said so far, and what of it alice and bob hear: all since they came.
said=0
heard=0

export ROUNDTABLE_IMAGE=$project DESIGN=$design

say() { printf '\n%3d s  %s\n' "$SECONDS" "$*"; }
show() { sed 's/^/       /'; }

fail() {
    exec >&2
    say "FAILED: $*"
    for id in $(docker ps --all --quiet --filter "name=$project"); do
        echo "--- $(docker inspect --format '{{.Name}} {{.State.Status}}' "$id")"
        docker logs --tail 40 "$id" 2>&1 | show
    done
    exit 1
}

# The second command line of Docker Compose, or the first.
compose() {
    if docker compose version >/dev/null 2>&1; then
        docker compose --project-name "$project" --file deploy/compose.yaml "$@"
    else
        docker-compose --project-name "$project" --file deploy/compose.yaml "$@"
    fi
}

# Its messages are shown when it fails.
quietly() { "$@" >"$temp/quiet" 2>&1 || { show <"$temp/quiet"; fail "$*"; }; }

# Waits until a command succeeds: what for, the command.
wait_until() {
    local what=$1 since=$SECONDS
    shift
    until "$@"; do
        [ $((SECONDS - since)) -lt "$patience" ] || fail "not within $patience s: $what"
        sleep 0.3
    done
}

cleanup() {
    trap '' INT TERM
    set +e
    exec 7>&- 8>&-
    compose --profile client down --volumes --timeout 5
    docker ps --all --quiet --filter "name=$project" | xargs -r docker rm --force --volumes
    docker network ls --quiet --filter "name=$project" | xargs -r docker network rm
    docker volume ls --quiet --filter "name=$project" | xargs -r docker volume rm
    docker rmi --force "$project" "$project-compiler"
    docker image prune --force --filter "label=roundtable.test=$project"
    wait
    rm -rf "$temp"
} >/dev/null 2>&1
trap cleanup EXIT
trap 'exit 130' INT TERM

# ---------------------------------------------------------------- images

make_base() {
    docker image inspect "$base" >/dev/null 2>&1 && return
    timeout 120 docker pull --quiet "$base" >/dev/null 2>&1 && return
    say "no registry is in reach: debootstrap makes $base"
    command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
    quietly debootstrap --variant=minbase bookworm "$temp/base"
    # What the slim image leaves out, too.
    rm -rf "$temp"/base/var/cache/apt/* "$temp"/base/var/lib/apt/lists/* \
        "$temp"/base/usr/share/{doc,man,info,locale}
    tar --directory "$temp/base" --create . | docker import - "$base" >/dev/null
    rm -rf "$temp/base"
}

# An image where the Dockerfile finds a `cargo`, which takes the one command that stands there.
make_compiler() {
    mkdir "$temp/compiler"
    cp "$program" "$temp/compiler/roundtable"
    cat >"$temp/compiler/cargo" <<'CARGO'
#!/bin/sh
set -eu
[ "$*" = "build --release --locked --bin roundtable" ] && [ -f Cargo.lock ] && [ -f src/main.rs ]
mkdir -p target/release
cp /roundtable target/release/
CARGO
    chmod 755 "$temp"/compiler/*
    # Layers that were built on it have its label, too.
    printf 'FROM %s\nLABEL roundtable.test=%s\nCOPY cargo /usr/local/bin/\nCOPY roundtable /\n' "$base" "$project" \
        >"$temp/compiler/Dockerfile"
    quietly docker build --tag "$project-compiler" "$temp/compiler"
}

make_images() {
    make_base
    make_compiler
    quietly docker build --file deploy/Dockerfile --build-arg "RUST_IMAGE=$project-compiler" --tag "$project" .
    docker image inspect --format 'user {{.Config.User}}, stop signal {{.Config.StopSignal}}, {{.Size}} bytes' \
        "$project" | show
}

# ---------------------------------------------------------------- servers

# Its id. Asked for once: it is the same after a stop and a start.
container() {
    [ -s "$temp/$1.id" ] || compose ps --quiet "$1" >"$temp/$1.id"
    cat "$temp/$1.id"
}

# What the server says of itself, as JSON.
status() { docker exec "$(container "$1")" roundtable status --format json --connect 127.0.0.1:7001; }

check() { docker exec "$(container "$1")" roundtable status --check "$2" --connect 127.0.0.1:7001; }

is_healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$(container "$1")")" = "$2" ]; }

# The leader, as a server sees it; empty when it knows none.
leader() { status "$1" | sed -n 's/.*"leader":"\([^"]*\)".*/\1/p'; }

leads_now() { [ -n "$(leader "$1")" ]; }

sees_all() { case $(status "$1") in *'"ring":["n1","n2","n3"]'*) ;; *) return 1 ;; esac; }

# How many messages a server has. It has one room.
messages() { status "$1" | sed -n 's/.*"messages":\([0-9]*\).*/\1/p'; }

# Whether all that was said is on as many servers as the design asks for: then the next may fail.
is_repaired() {
    local held=0 needed=3
    [ "$design" != ring ] || needed=2
    for node in n1 n2 n3; do
        [ "$(messages "$node")" != "$said" ] || held=$((held + 1))
    done
    [ $held -ge $needed ]
}

wait_whole() {
    for node in n1 n2 n3; do
        wait_until "$node is healthy" is_healthy "$node" healthy
        wait_until "$node sees all" sees_all "$node"
    done
    wait_until "all that was said is on enough disks" is_repaired
}

# The servers other than those named.
others() {
    for node in n1 n2 n3; do
        case " $* " in *" $node "*) ;; *) echo $node ;; esac
    done
}

# ---------------------------------------------------------------- people

# The processes of the two that stay.
alice='' bob=''

# Someone who stays for the whole test: name, the server to be with first, the descriptor that they read.
talker() {
    local name=$1 first=$2
    mkfifo "$temp/$name.in"
    docker run --rm --interactive --init --name "$project-$name" --network "${project}_default" --read-only \
        "$project" client --name "$name" --connect "$first:7001,n1:7001,n2:7001,n3:7001" --history 0 --wait-ms 60000 \
        <"$temp/$name.in" >"$temp/$name.out" 2>"$temp/$name.err" &
    eval "$name=\$!; exec $3>\"\$temp/\$name.in\""
    wait_until "$name is in the room" grep -q 'you joined' "$temp/$name.err"
}

hears_all() { [ "$(wc -l <"$temp/$1.out")" -ge "$heard" ]; }

# Both say ten things, in turn, and hear all of them: it is shown only when the design's promise holds.
talk() {
    local since=$SECONDS
    for n in 1 2 3 4 5 6 7 8 9 10; do
        echo "$1, $n" | tee -a "$temp/alice.said" >&7
        echo "$1, answer $n" | tee -a "$temp/bob.said" >&8
        sleep 0.1
    done
    said=$((said + 20)) heard=$((heard + 20))
    wait_until "alice hears all: $1" hears_all alice
    wait_until "bob hears all: $1" hears_all bob
    echo "alice and bob say 20 things and hear them, within $((SECONDS - since)) s; the last:" | show
    tail -n 2 "$temp/alice.out" | show
}

moves() { sed -n "s/^\* moved/$1 moved/p" "$temp/$1.err" | show; }

# The whole room as a server shows it to someone who comes now.
history_of() {
    docker exec --interactive "$(container "$1")" roundtable client --name "reader-$1" --history 1000 \
        --connect 127.0.0.1:7001 --expect "$said" --linger-ms 20000 </dev/null 2>/dev/null
}

# The lines of a room that somebody said, without their name.
said_by() { sed -n "s/^\[lobby\] $1: //p" "$2"; }

# ---------------------------------------------------------------- pods

# A pod of k8s.yaml: its number. The environment is what stands there; what Kubernetes puts in place of $(NAME) is put here.
pod() {
    local name=roundtable-$1 arguments=()
    while IFS= read -r setting; do
        arguments+=(--env "$setting")
    done < <(pod_settings "$name")
    docker run --detach --name "$project-$name" --network "$project-pods" --network-alias "$name.roundtable.chat.svc" \
        --read-only --cap-drop ALL --security-opt no-new-privileges --user 10001:10001 \
        --volume "$project-data-$1:/data" "${arguments[@]}" --env ROUNDTABLE_LOG=debug \
        "$project" server --no-discovery >/dev/null
}

pod_settings() {
    grep -Eq 'args: \[server, --no-discovery\]' deploy/k8s.yaml || return
    echo "ROUNDTABLE_ID=$1"
    # Name and value stand on two lines; a value that ends with a backslash goes on in the next.
    sed -e ':more' -e '/\\$/{N;s/\\\n *//;b more' -e '}' deploy/k8s.yaml |
        sed -n '/- name: ROUNDTABLE_/{N;s/.*- name: \([A-Z_]*\)\n *value: "\{0,1\}\([^"]*\)"\{0,1\}$/\1=\2/p}' |
        sed -e "s/\$(ROUNDTABLE_ID)/$1/g" -e "s/\$(NAMESPACE)/chat/g"
}

check_pod() { docker exec "$project-roundtable-$1" roundtable status --check "$2" --connect 127.0.0.1:7001 2>&1; }

tried_again() { [ "$(docker logs "$project-roundtable-0" 2>&1 | grep -c "cannot reach $1")" -ge 3 ]; }

# ---------------------------------------------------------------- the test

docker info >/dev/null 2>&1 || { echo "deploy/test.sh: no Docker engine answers" >&2; exit 1; }

say "the image, from deploy/Dockerfile"
make_images

say "compose.yaml, design $design: three servers that find each other"
quietly compose up --detach --no-build
wait_whole
check n1 ready | show
first=$(leader n1)
echo "$first leads" | show


say "one message through the client of compose.yaml"
echo "is anybody there?" >"$temp/carol.in"
NAME=carol compose run --rm -T client <"$temp/carol.in" 2>/dev/null | tee "$temp/carol.out" | show ||
    fail "carol is not acknowledged"
grep -qx '\[lobby\] carol: is anybody there?' "$temp/carol.out" || fail "carol does not hear herself"
said=1

say "alice comes to $first, bob to another"
talker alice "$first" 7
talker bob "$(others "$first" | head -n 1)" 8
talk "all is well"

say "$first, where alice is, is cut off: docker network disconnect"
docker network disconnect "${project}_default" "$(container "$first")"
talk "$first is cut off"
moves alice
second=$(leader "$(others "$first" | head -n 1)")
echo "for the others $second leads; $first says:" | show
if [ "$design" = ring ]; then
    wait_until "$first goes on alone" check "$first" ready >/dev/null
    check "$first" ready | show
else
    wait_until "$first is unhealthy" is_healthy "$first" unhealthy
    if check "$first" ready >"$temp/check" 2>&1; then fail "$first takes clients"; fi
    show <"$temp/check"
    check "$first" alive | show
fi

say "it is connected again"
docker network connect --alias "$first" "${project}_default" "$(container "$first")"
wait_whole
second=$(leader n1)
echo "all three are healthy and have all $said messages, $second leads" | show

say "$second is killed: docker kill"
docker kill "$(container "$second")" >/dev/null
talk "$second is dead"
moves alice
moves bob
docker start "$(container "$second")" >/dev/null
wait_whole
echo "$second is started again: all are healthy and have all $said messages" | show

say "all are rolled, one after the other: docker stop, docker start"
for node in n1 n2 n3; do
    docker stop --time 20 "$(container "$node")" >/dev/null
    code=$(docker inspect --format '{{.State.ExitCode}}' "$(container "$node")")
    [ "$code" = 0 ] || fail "$node ends with $code"
    talk "$node is stopped"
    docker start "$(container "$node")" >/dev/null
    wait_whole
done

say "alice and bob leave"
exec 7>&- 8>&-
# A client that reads from a pipe ends with 0 when all that it sent is acknowledged, and with 1 otherwise.
wait "$alice" || fail "alice: $(tail -n 1 "$temp/alice.err")"
wait "$bob" || fail "bob: $(tail -n 1 "$temp/bob.err")"
echo "both were acknowledged everything: $((said - 1)) messages" | show
for node in n1 n2 n3; do
    history_of "$node" >"$temp/$node.history" || fail "$node does not show $said messages"
    for name in alice bob; do
        said_by "$name" "$temp/$node.history" | cmp - "$temp/$name.said" ||
            fail "$node does not have what $name said, each once, in the order in which it was said"
    done
    echo "$node shows $(wc -l <"$temp/$node.history") messages: all that was acknowledged, each once, each one's in order" | show
done
if [ "$design" != ring ]; then
    for node in n2 n3; do
        cmp "$temp/n1.history" "$temp/$node.history" || fail "n1 and $node show different orders"
    done
    echo "the three show the same order" | show
fi
quietly compose --profile client down --volumes --timeout 20

say "k8s.yaml: the first pod starts, the names of the others mean nothing yet"
docker network create "$project-pods" >/dev/null
pod 0
wait_until "roundtable-0 answers" check_pod 0 alive >/dev/null
wait_until "roundtable-0 tries the name of roundtable-2 again" tried_again roundtable-2.roundtable.chat.svc:7001
check_pod 0 alive | show
if check_pod 0 ready >"$temp/check"; then fail "roundtable-0 takes clients alone"; fi
show <"$temp/check"
say "the other two start"
pod 1
pod 2
for number in 0 1 2; do
    wait_until "roundtable-$number takes clients" check_pod $number ready >/dev/null
    check_pod $number ready | show
done
say "a pod is replaced: the same volume, another address"
docker stop --time 30 "$project-roundtable-1" >/dev/null
docker rm "$project-roundtable-1" >/dev/null
docker run --detach --name "$project-address" --network "$project-pods" --entrypoint sleep "$base" 600 >/dev/null
pod 1
wait_until "roundtable-1 takes clients" check_pod 1 ready >/dev/null
check_pod 1 ready | show
echo 'hello from a pod' | docker run --rm --interactive --init --network "$project-pods" "$project" client --name dora \
    --connect roundtable-1.roundtable.chat.svc:7001 2>/dev/null | show || fail "dora is not acknowledged"

say "a fourth is added: kubectl scale"
pod 3
wait_until "roundtable-3 takes clients" check_pod 3 ready >/dev/null
check_pod 3 ready | show
docker exec --interactive "$project-roundtable-3" roundtable client --name eve --connect 127.0.0.1:7001 --expect 1 \
    --linger-ms 20000 </dev/null 2>/dev/null | grep -qx '\[lobby\] dora: hello from a pod' || fail "roundtable-3 has not what dora said"
echo "it has what dora said" | show
docker exec "$project-roundtable-0" roundtable member add roundtable-3 --connect 127.0.0.1:7001 2>&1 | show ||
    fail "roundtable-3 is no voter"

say "passed"
