# `make` alone lists the targets. Everything works with cargo, a C compiler and make.

# The dev profile compiles our own code optimised and leaves the AWS SDK as it is: a fresh build takes minutes less.
TARGET  := $(or $(CARGO_TARGET_DIR),target)
LSWITCH := $(TARGET)/debug/lswitch
DEMO    := $(TARGET)/demo
PARTS   ?= 4
ARCH    ?= x86_64

.PHONY: help demo test test-python schedules planted stall fuzz check bench-switch bench-graph bench-programs fmt lint docs build lambda-zip release clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 12

demo: build ## PageRank end to end on this machine; GRAPH=FILE runs it on a graph of your own
	@mkdir -p $(DEMO)
ifndef GRAPH
	$(LSWITCH) generate rmat --scale 14 --edge-factor 8 --seed 1 --out $(DEMO)/graph.txt
endif
	$(LSWITCH) preprocess $(or $(GRAPH),$(DEMO)/graph.txt) --parts $(PARTS) --out $(DEMO)/graph.parts
	$(LSWITCH) invoke pagerank --graph $(DEMO)/graph.parts --workers $(PARTS) --tolerance 1e-10 \
		--output $(DEMO)/ranks --overwrite --store $(DEMO)/store

test: $(TARGET)/moto/ready ## The whole test suite; graphs from LSWITCH_DATA or ../shared/data
	LSWITCH_MOTO=$$(ls $(abspath $(TARGET))/moto/bin/moto_server 2>/dev/null) cargo test

# moto stands in for AWS's control plane. Without PyPI the tests that need it say so and pass, except in CI.
$(TARGET)/moto/ready:
	python3 -m venv $(TARGET)/moto && $(TARGET)/moto/bin/pip install --quiet 'moto[server,awslambda,iam,logs,s3]' && touch $@ \
		|| echo "no moto from PyPI: tests of the control plane will be skipped"

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

docs: ## Do the docs of the crate build?
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

# With the tests, since their crates' features would otherwise compile the AWS SDK a second time for `make test`.
build:
	cargo build --tests

# Built by zig's C compiler against an old C library, so that it runs on both; what it asks for is checked when it is packaged.
lambda-zip: ## A small bootstrap for provided.al2023 and provided.al2, and its zip; ARCH=aarch64 for Graviton
	python3 -m venv $(TARGET)/zig && $(TARGET)/zig/bin/pip install --quiet ziglang cargo-zigbuild
	$(if $(filter aarch64,$(ARCH)),rustup target add aarch64-unknown-linux-gnu)
	PATH="$(abspath $(TARGET))/zig/bin:$$PATH" cargo zigbuild --profile lambda --no-default-features --target $(ARCH)-unknown-linux-gnu.2.26
	mkdir -p $(TARGET)/lambda && cp $(TARGET)/$(ARCH)-unknown-linux-gnu/lambda/lswitch $(TARGET)/lambda/bootstrap
	cargo run --quiet -- function package --runtime provided.al2 --bootstrap $(TARGET)/lambda/bootstrap --out $(TARGET)/lambda/lswitch.zip

release: ## An optimised, stripped binary in target/release
	cargo build --release

clean: ## Remove everything that was built
	cargo clean
