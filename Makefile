# `make` alone lists the targets. Everything works with cargo, a C compiler and make.

# The dev profile compiles our own code optimised and leaves the AWS SDK as it is: a fresh build takes minutes less.
TARGET  := $(or $(CARGO_TARGET_DIR),target)
LSWITCH := $(TARGET)/debug/lswitch
DEMO    := $(TARGET)/demo
PARTS   ?= 4
ARCH    ?= x86_64

.PHONY: help demo test test-python schedules planted stall faults fuzz check bench-switch bench-graph bench-programs fmt lint docs build lambda-zip linux release clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 12

demo: build ## PageRank end to end on this machine; GRAPH=FILE runs it on a graph of your own
	@mkdir -p $(DEMO)
ifndef GRAPH
	$(LSWITCH) generate rmat --scale 14 --edge-factor 8 --seed 1 --out $(DEMO)/graph.txt
endif
	$(LSWITCH) preprocess $(or $(GRAPH),$(DEMO)/graph.txt) --parts $(PARTS) --out $(DEMO)/graph.parts --overwrite
	$(LSWITCH) invoke pagerank --graph $(DEMO)/graph.parts --workers $(PARTS) --tolerance 1e-10 \
		--output $(DEMO)/ranks --overwrite --store $(DEMO)/store

# Where what others have made for tests is installed; nothing for what could not be.
INSTALLED = LSWITCH_MOTO=$$(ls $(abspath $(TARGET))/moto/bin/moto_server 2>/dev/null) \
	LSWITCH_CARGO_LAMBDA=$$(ls $(abspath $(TARGET))/cargo-lambda/bin/cargo-lambda 2>/dev/null) \
	LSWITCH_NODE_RIC=$$(ls $(abspath $(TARGET))/node/lib/node_modules/aws-lambda-ric/index.mjs 2>/dev/null)

test: $(TARGET)/moto/ready $(TARGET)/cargo-lambda/ready $(TARGET)/node/ready ## The whole test suite; graphs from LSWITCH_DATA or ../shared/data
	$(INSTALLED) cargo test

# moto stands in for AWS's control plane. Without PyPI the tests that need it say so and pass, except in CI.
$(TARGET)/moto/ready:
	python3 -m venv $(TARGET)/moto && $(TARGET)/moto/bin/pip install --quiet 'moto[server,awslambda,iam,logs,s3]' && touch $@ \
		|| echo "no moto from PyPI: tests of the control plane will be skipped"

# cargo-lambda runs our workers in place of Lambda. What it depends on is for building, which nobody asks it for.
$(TARGET)/cargo-lambda/ready:
	python3 -m venv $(TARGET)/cargo-lambda && $(TARGET)/cargo-lambda/bin/pip install --quiet --no-deps 'cargo-lambda>=1.9.2' && touch $@ \
		|| echo "no cargo-lambda from PyPI: the test with it will be skipped"

# AWS's runtime client for Node runs in the local Lambda. Its native part is built in a minute with Node's headers, a C++ compiler, make
# and PyPI's cmake; where that fails the tests with it say so and pass, in CI too.
$(TARGET)/node/ready:
	@mkdir -p $(TARGET)/node
	npm --version > /dev/null && python3 -m venv $(TARGET)/node/cmake && $(TARGET)/node/cmake/bin/pip install --quiet cmake \
		&& PATH="$(abspath $(TARGET))/node/cmake/bin:$$PATH" npm install --global --prefix $(abspath $(TARGET))/node \
			--allow-scripts=aws-lambda-ric aws-lambda-ric@4.0.2 > $(TARGET)/node/log 2>&1 \
		&& test -f $(TARGET)/node/lib/node_modules/aws-lambda-ric/rapid-client.node && touch $@ \
		|| { rm -rf $(TARGET)/node/lib; echo "no aws-lambda-ric from npm ($(TARGET)/node/log): tests with Node will be skipped"; }

test-python: build ## The Python client's tests, with awslambdaric, NumPy and cloudpickle in target/venv
	cargo build --example programs
	python3 -m venv $(TARGET)/venv
	$(TARGET)/venv/bin/pip install --quiet awslambdaric numpy cloudpickle
	LSWITCH=$(abspath $(LSWITCH)) LSWITCH_PROGRAMS=$(abspath $(TARGET)/debug/examples/programs) \
		$(TARGET)/venv/bin/python -m unittest discover python/tests

schedules: ## Ten million random schedules of the switch's and the packs' flow control
	LSWITCH_SCHEDULES=10000000 cargo test --test it schedules:: -- --nocapture

planted: ## Are bugs that are planted on purpose found?
	cargo test --features planted-bugs --test it schedules::planted -- --nocapture

stall: ## Do others notice a rank that receives nothing for ten seconds while 10 GB are offered to it?
	LSWITCH_STALL_SECONDS=10 cargo test --test it memory::a_rank_that -- --nocapture

faults: ## Faults at random moments over all jobs for LSWITCH_FAULTS_SECONDS (300); LSWITCH_FAULTS_SEED repeats a run
	LSWITCH_FAULTS_SECONDS=$(or $(LSWITCH_FAULTS_SECONDS),300) cargo test --test it faults::chaos -- --nocapture
	LSWITCH_LEFTOVERS_ROUNDS=$(or $(LSWITCH_LEFTOVERS_ROUNDS),5) cargo test --test it leftovers:: -- --nocapture

fuzz: ## Ten minutes of damaged bytes for everything that decodes
	LSWITCH_FUZZ_SECONDS=600 cargo test --test it fuzz:: -- --nocapture

check: test fmt lint docs ## What CI runs

bench-switch: ## lswitch beside nats, redis, Open MPI and bare relays; ARGS="--only packs --rounds 3"
	cargo build --release
	cargo build --release -p lswitch-bench
	$(TARGET)/release/lswitch-bench $(ARGS)
	cargo test --test it many:: -- --nocapture

bench-graph: ## Graphs beside the graph crate, polars, GAP, gpmetis; PYTHON, GAPBS name the last; ARGS="--rounds 3 --crawl FILE"
	cargo build --release
	cargo build --release -p lswitch-bench-graph
	$(TARGET)/release/lswitch-bench-graph $(ARGS)

bench-programs: ## Calls, word count and sort beside ray, dask, polars, duckdb, GNU sort; PYTHON has them; ARGS="--only sort --rounds 3"
	cargo build --release
	cargo build --release -p lswitch-bench-programs
	$(or $(PYTHON),python3) bench-programs/run.py $(ARGS)

fmt: ## Is everything formatted?
	cargo fmt --all --check

lint: ## Lints, warnings as errors
	cargo clippy --all-targets -- -D warnings
	cargo clippy --no-default-features -- -D warnings

docs: ## Do the docs of the crate build?
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

# With the tests, since their crates' features would otherwise compile the AWS SDK a second time for `make test`.
build:
	cargo build --tests

# Built by zig's C compiler against an old C library, so that it runs on both runtimes. What it asks for of the library is checked when
# it is packaged, and its size (bytes; a cold start reads all of it) here.
BOOTSTRAP_MAX := 12000000
ZIP_MAX       := 5300000
lambda-zip: build $(TARGET)/zig/ready ## A small bootstrap for provided.al2023 and provided.al2, and its zip; ARCH=aarch64 for Graviton
	$(ADD_TARGET)
	$(ZIGBUILD) --profile lambda --no-default-features
	mkdir -p $(ZIP) && cp $(TARGET)/$(ARCH)-unknown-linux-gnu/lambda/lswitch $(ZIP)/bootstrap
	$(LSWITCH) function package --runtime provided.al2 --architecture $(subst aarch64,arm64,$(ARCH)) \
		--bootstrap $(ZIP)/bootstrap --out $(ZIP)/lswitch.zip
	@cd $(ZIP) && wc -c bootstrap lswitch.zip && test $$(wc -c < bootstrap) -le $(BOOTSTRAP_MAX) && test $$(wc -c < lswitch.zip) -le $(ZIP_MAX)

linux: $(TARGET)/zig/ready ## All commands for any Linux since 2018, such as a switch's machine; ARCH=aarch64 for Graviton
	$(ADD_TARGET)
	$(ZIGBUILD) --release
	mkdir -p $(TARGET)/linux$(ARM) && cp $(TARGET)/$(ARCH)-unknown-linux-gnu/release/lswitch $(TARGET)/linux$(ARM)/lswitch

ARM      = $(if $(filter aarch64,$(ARCH)),-arm64)
ADD_TARGET = $(if $(ARM),rustup target add $(ARCH)-unknown-linux-gnu)
ZIP      = $(TARGET)/lambda$(ARM)
ZIGBUILD = PATH="$(abspath $(TARGET))/zig/bin:$$PATH" cargo zigbuild --bin lswitch --target $(ARCH)-unknown-linux-gnu.2.26

$(TARGET)/zig/ready:
	python3 -m venv $(TARGET)/zig && $(TARGET)/zig/bin/pip install --quiet ziglang cargo-zigbuild
	touch $@

release: ## An optimised, stripped binary in target/release
	cargo build --release

clean: ## Remove everything that was built
	cargo clean
