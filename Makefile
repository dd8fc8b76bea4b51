# `make` prints the targets. Variables are set on the command line: make cluster PORT1=8001 DATA=/tmp/rt

PORT1 = 7001
PORT2 = 7002
PORT3 = 7003
DATA = data
DESIGN = ring
DISCOVERY = 5007
ROOM = lobby
SEEDS = 2000
# How long each design is tortured.
FOR = 60s
# What is measured; empty: everything.
WORKLOADS =
# What compare draws.
SVG = compare.svg
# Servers of a simulated cluster.
NODES = 5
# The servers that a client tries, in turn.
CONNECT = $(ADDRESSES)
# More options for every server, such as OPTIONS="--log debug".
OPTIONS =
# Two terminals of one user get two names: the terminal's number is added.
NAME = $(shell id -un)$(shell tty | sed -n 's/.*[^0-9]\([0-9][0-9]*\)$$/-\1/p')

TEST = cargo test --locked --features deadlock-detection
SIMULATED = cargo test --locked --profile simulation --test simulation
UNITS = --lib --bins --example elections
# Every other test than that of simulated clusters.
PROCESSES = --test '[!s]*' --test 's[!i]*'

ADDRESSES = 127.0.0.1:$(PORT1),127.0.0.1:$(PORT2),127.0.0.1:$(PORT3)
PROGRAM = $${CARGO_TARGET_DIR:-target}/debug/roundtable
SERVER_OPTIONS = --design '$(DESIGN)' --discovery-port '$(DISCOVERY)' $(OPTIONS)
SERVER = exec $(PROGRAM) server --peers '$(ADDRESSES)' $(SERVER_OPTIONS)

.PHONY: help demo cluster node1 node2 node3 client status explain build test sim planted scale elections soak torture
.PHONY: bench growth check lint-last test-simulated test-units test-processes build-simulated
.PHONY: build-others compare compare-ack
.PHONY: deploy-test deploy-check lint docs clean

help: ## print this list
	@echo 'make TARGET [VARIABLE=VALUE ...]'
	@echo
	@awk -F ': .*## ' '/^[a-z0-9-]+: .*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'Variables and their defaults:'
	@echo '  PORT1=$(PORT1) PORT2=$(PORT2) PORT3=$(PORT3) DATA=$(DATA) DESIGN=$(DESIGN) DISCOVERY=$(DISCOVERY)'
	@echo '  ROOM=$(ROOM) NAME=$(NAME) OPTIONS=$(OPTIONS)'
	@echo '  CONNECT=$(CONNECT)'
	@echo '  SEEDS=$(SEEDS) NODES=$(NODES) (of sim; compare has 3) FOR=$(FOR) SVG=$(SVG)'

demo: build ## watch a leader die while two people talk; DESIGN=raft is another design
	@exec $(PROGRAM) demo --design '$(DESIGN)'

cluster: build ## run three servers, their logs prefixed, until ctrl-c
	@DATA='$(DATA)' exec sh scripts/cluster.sh "$(PROGRAM)" $(PORT1) $(PORT2) $(PORT3) -- $(SERVER_OPTIONS)

node1: build ## run the first server alone: for three terminals
	@$(SERVER) --id n1 --listen 127.0.0.1:$(PORT1) --data '$(DATA)/n1'

node2: build ## the second
	@$(SERVER) --id n2 --listen 127.0.0.1:$(PORT2) --data '$(DATA)/n2'

node3: build ## the third
	@$(SERVER) --id n3 --listen 127.0.0.1:$(PORT3) --data '$(DATA)/n3'

client: build ## chat in ROOM as NAME
	@exec $(PROGRAM) client --connect '$(CONNECT)' --name '$(NAME)' --room '$(ROOM)'

status: build ## show how the cluster is
	@exec $(PROGRAM) status --connect '$(CONNECT)'

explain: build ## say in sentences how the cluster is, and why one cannot write
	@exec $(PROGRAM) explain --connect '$(CONNECT)'

build: ## build the program
	@cargo build --quiet --locked

test: ## run all tests
	@$(MAKE) --no-print-directory -j 3 --output-sync=target test-simulated test-units test-processes

check: ## run all tests, and lint
	cargo fmt --check
	@$(MAKE) --no-print-directory -j 3 --output-sync=target test-units test-processes lint-last

# Builds in one folder wait for each other, and tests of processes take longest: this begins when they run.
lint-last: test-simulated
	@$(MAKE) --no-print-directory lint

# Simulated clusters keep the cores busy, real ones mostly wait: side by side all take half as long.
test-simulated: build-simulated
	$(SIMULATED)

test-units: build-others
	$(TEST) $(UNITS)
	$(TEST) --doc

test-processes: build-others
	$(TEST) $(PROCESSES)

build-simulated:
	@$(SIMULATED) --no-run

build-others:
	@$(TEST) $(UNITS) $(PROCESSES) --no-run

sim: ## simulated clusters of NODES servers with every fault; SEEDS=100 is shorter
	cargo run --release --quiet --locked -- sim --design '$(DESIGN)' --nodes $(NODES) --seeds $(SEEDS)

planted: ## plant each fault that the simulator has to catch, some into real servers, and see them caught
	cargo test --locked --profile simulation --lib sim::planted -- --ignored --nocapture
	cargo test --locked --features planted-faults --test torture planted

scale: ## how much a cluster at rest says, by the number of servers
	cargo run --release --quiet --locked --example scale

elections: ## race three elections, and renew the guide's tables and picture of it
	cargo run --release --quiet --locked --example elections write

soak: ## kill, pause and cut off servers for a long time; ROUNDS=2 SOAK_SECONDS=30 is shorter
	cargo test --locked --test survival --test partition --test sequencer --test raft soak -- --ignored --nocapture --test-threads 1
	cargo test --locked --release --test catch_up soak -- --ignored --nocapture
	cargo test --locked --release --lib planted -- --ignored

torture: ## break real servers of each design for FOR=60s, by a random seed
	@cargo build --release --quiet --locked
	@for design in ring sequencer raft; do \
	  $${CARGO_TARGET_DIR:-target}/release/roundtable torture --design $$design --for '$(FOR)' || exit 1; echo; done

bench: ## how fast servers are, and what the machine could do; WORKLOADS=writes is only that
	@cargo build --release --quiet --locked
	@exec $${CARGO_TARGET_DIR:-target}/release/roundtable bench $(WORKLOADS) --design '$(DESIGN)'

growth: ## measure how cost grows, for some five minutes, and renew the guide's tables and picture of it
	@cargo build --release --quiet --locked
	@exec $${CARGO_TARGET_DIR:-target}/release/roundtable bench growth --design '$(DESIGN)' --into src/guide

compare: ## measure the three designs under the same load and faults: a table, and a picture in SVG=compare.svg
	@cargo build --release --quiet --locked
	@$${CARGO_TARGET_DIR:-target}/release/roundtable compare --nodes $(if $(filter file,$(origin NODES)),3,$(NODES)) --svg '$(SVG)'

compare-ack: ## show what a dead leader takes along with --ack leader, and that it is nothing with majority
	cargo test --locked --test sequencer compare -- --ignored --nocapture

deploy-test: build ## containers: cut one off, kill another, compare (Docker); DESIGN=ring is another design than raft
	@DESIGN='$(if $(filter file,$(origin DESIGN)),raft,$(DESIGN))' exec deploy/test.sh "$(PROGRAM)"

deploy-check: ## hold deploy/k8s.yaml against the schemas of Kubernetes, lint the Dockerfile and the scripts (pip)
	@deploy/check.sh

lint: ## check format, lints, documentation and dependencies; warnings are errors
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items
	sh scripts/check-dependencies.sh

docs: ## build the documentation; start at target/doc/roundtable/index.html
	cargo doc --locked --no-deps --document-private-items

clean: ## remove what was built; the data folders stay
	cargo clean
