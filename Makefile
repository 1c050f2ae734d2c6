# Postern: two commands for a fresh machine, `make demo` and `make test`; the rest are their parts.
#
#   make demo      install what is missing, build, build the guest image, play the story
#   make test      install what tests need, run everything, end with one summary
#   make build     the programs, in target/dist/bin
#   make agent     the program that is measured, and its digest: the same wherever it is built from these sources
#   make image     the guest image, in target/dist/image
#   make kernel    the specialised guest kernel, in the cache (some ten minutes of two cores, once); images use it then
#   make bench     figures, as a table and as JSON
#   make check     formatting, lints, tidy; dependencies where cargo-deny is installed

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test build agent image kernel kernel-path bench check tools setup-build setup-demo setup-test \
  setup-kernel install clean

TRIPLE  := x86_64-unknown-linux-gnu
RELEASE := target/$(TRIPLE)/release
DIST    := target/dist
VSOCK_VERSION := 0.3.0
PROGRAMS := postern postern-host postern-simtee postern-image
PACKAGES := $(addprefix --package postern-,ctl sandbox simtee builder)
PREFIX ?= /usr/local
KERNEL_PROFILE ?= general

export POSTERN_DIST := $(CURDIR)/$(DIST)
# Debug builds of dependencies carry no debug information: cold builds are paid at every change.
export CARGO_TERM_PROGRESS_WHEN ?= never

# A program that ships is the same wherever it was built: no path of this machine is in it. Held by `.ci/reproducible`.
RUST_PATHS := --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo --remap-path-prefix=$(CURDIR)=/postern
SHIPPED := CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static $(RUST_PATHS)"

help:
	@sed -n '3,10s/^# \{0,1\}//p' Makefile

demo: setup-demo build image
	@$(SHIPPED) cargo build --quiet --release --locked --package postern-tests --bin postern-demo
	@$(RELEASE)/postern-demo

test: setup-test build image
	cargo xtask test

build: agent tools
	$(SHIPPED) cargo build --release --locked $(PACKAGES)
	@$(call ship,$(PROGRAMS))

# By itself: cargo gives a library the features that all packages of one build ask of it, and what is measured should not
# change with what an owner's or a host's program needs.
agent: setup-build
	$(SHIPPED) cargo build --release --locked --package postern-agent
	@$(call ship,postern-agent)
	@cd $(DIST)/bin && sha256sum postern-agent

ship = mkdir -p $(DIST)/bin; for program in $(1); do \
	  cmp -s $(RELEASE)/$$program $(DIST)/bin/$$program || cp $(RELEASE)/$$program $(DIST)/bin/$$program; \
	done

# The user-space vsock device for hosts without /dev/vhost-vsock.
tools: setup-build
	@if [ ! -x $(DIST)/bin/vhost-device-vsock ]; then \
	  RUSTFLAGS= cargo install --quiet --locked --version $(VSOCK_VERSION) --root target/tools \
	    --target-dir target/tools/build vhost-device-vsock; \
	  mkdir -p $(DIST)/bin; cp target/tools/bin/vhost-device-vsock $(DIST)/bin/; rm -rf target/tools; \
	fi

# With the kernel of `make kernel` when it is there, with the distribution's when not.
image: build
	@if $(DIST)/bin/postern-image kernel path --profile $(KERNEL_PROFILE) > /dev/null 2>&1; \
	  then kernel="--profile $(KERNEL_PROFILE)"; else kernel=; fi; \
	$(DIST)/bin/postern-image build --agent $(DIST)/bin/postern-agent --out $(DIST)/image --sources . $$kernel

kernel: setup-kernel build
	@$(DIST)/bin/postern-image kernel build --profile $(KERNEL_PROFILE)

kernel-path:
	@test -x $(DIST)/bin/postern-image || { echo "the programs are not built; run make kernel" >&2; exit 1; }
	@$(DIST)/bin/postern-image kernel path --profile $(KERNEL_PROFILE)

bench: setup-test build image
	@$(SHIPPED) cargo build --quiet --release --locked --package postern-tests --bin postern-bench
	@$(RELEASE)/postern-bench

check: setup-build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo xtask tidy
	@if command -v cargo-deny > /dev/null; then \
	  cargo deny --locked check --allow no-license-field bans licenses sources; \
	else echo "cargo-deny is not installed: dependencies are not checked (cargo install --locked cargo-deny)"; fi

install: build image
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/postern/image
	install $(addprefix $(DIST)/bin/,$(PROGRAMS) postern-agent vhost-device-vsock) $(DESTDIR)$(PREFIX)/bin/
	install -m 644 $(DIST)/image/* $(DESTDIR)$(PREFIX)/share/postern/image/

setup-build:
	@./setup.sh build

setup-kernel:
	@./setup.sh build kernel

setup-demo:
	@./setup.sh build demo

setup-test:
	@./setup.sh build demo test

clean:
	rm -rf $(DIST)
	cargo clean
