# The commands of development; `make help` lists them. Everything is made below .venv/.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Not `python -m pytest`, which would test the checkout instead of what is installed.
PYTEST := .venv/bin/pytest

export PREFIX LINKS

.PHONY: help build run test test-extras test-unit test-host test-vm vm-shell soak lint docs mutants bench bench-crowd bench-build bench-pull bench-push bench-saveload bench-attacks bench-against bench-network bench-sockets bench-timeline bench-generator bench-userns bench-landlock install uninstall install-selinux uninstall-selinux clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

build: ## build sysbox and install it as .venv/bin/sysbox, with the packages that it needs
	@tools/setup.sh build

run: build ## a tour: a container as a scope, its limits changed while it runs
	@tools/demo.sh

test: test-extras ## all tests: lint, unit, plans, fuzz, the host lane under a real systemd, the lane in a guest
	@.venv/bin/python tools/test.py

test-extras: build
	@tools/setup.sh test

test-unit: test-extras ## the tests that do not touch the machine
	@$(PYTEST) tests/unit tests/plans tests/fuzz

test-host: test-extras ## the tests that run real containers under a real systemd
	@tools/test-host.sh

test-vm: ## the tests on cgroup v2 and with SELinux, in an emulated guest
	@tools/test-vm.sh

vm-shell: ## a shell in that guest, with sysbox installed
	@tools/setup.sh vm
	@.venv/bin/python tools/vm/run.py --shell

soak: test-extras ## fuzzing and the tests of faults for half an hour: kills, failing system calls, damage
	@tools/soak.sh

# For example `make mutants ONLY=security`, or ONLY=sysbox/run/exec.py, ONLY=tests/plans.
mutants: test-extras ## apply small mistakes to the code, one at a time, and report which test notices each (ONLY=...)
	@.venv/bin/python -I tools/mutants.py $(ONLY)

lint: test-extras ## ruff, mypy, and the rules about layers, imports and sizes
	@$(PYTEST) tests/lint

docs: build ## update the tables in docs/ that are made from the code
	@.venv/bin/python tools/resources.py

bench: build ## measure time and memory, beside docker, podman, nspawn, crun and runc
	@bench/run.sh

bench-crowd: build ## measure 300 containers at once, beside docker and podman; takes a quarter of an hour
	@bench/run.sh --crowd

bench-attacks: build ## run the attacks of docs/security.md on docker, podman and sysbox
	@bench/run.sh --attacks

bench-build: test-extras ## measure `build` of a Containerfile of six steps, cold and cached, beside buildah and docker
	@bench/run.sh --build

bench-pull: test-extras ## measure `pull` from a registry on loopback, beside docker and podman
	@bench/run.sh --pull

bench-push: test-extras ## measure `push` to a registry on loopback, beside docker and podman, and `create` from a large image
	@bench/run.sh --push

bench-saveload: test-extras ## measure `save` and `load`, beside docker and podman
	@bench/run.sh --saveload

bench-against: ## compare with another version, command by command: `make bench-against COMMIT=v1`
	@bench/against.sh $(COMMIT)

bench-timeline: build ## print the critical path of a start and of an end, from the kernel's tracer
	@.venv/bin/python -B bench/timeline.py

bench-network: build ## measure starts on networks, names, throughput and published ports, beside docker and aardvark-dns
	@bench/run.sh --network

bench-sockets: build ## measure the first answer of a container that starts, or thaws, with a connection
	@bench/run.sh --sockets

bench-generator: build ## measure the systemd generator on 200 files, beside the one of Debian 13's podman
	@set -o pipefail; unshare --mount .venv/bin/python -B bench/generator.py | .venv/bin/python -B bench/keep.py bench/RESULTS.md

bench-userns: build ## compare `run` in a user namespace of its own with `run --userns host`
	@.venv/bin/python -B bench/userns.py

bench-landlock: build ## compare `run --security-opt landlock=on` with `run` without it
	@set -o pipefail; .venv/bin/python -B bench/landlock.py | .venv/bin/python -B bench/keep.py bench/RESULTS.md

# Other directories: `make install PREFIX=/srv/sysbox LINKS=/srv/local`.
install: ## install sysbox for this machine: /opt/sysbox (PREFIX), and links to it below /usr/local (LINKS)
	@tools/install-system.sh install

uninstall: ## remove what `make install` made
	@tools/install-system.sh uninstall

install-selinux: ## compile and load the SELinux policy for sysbox, and label its files
	@tools/install-selinux.sh install

uninstall-selinux: ## remove that policy
	@tools/install-selinux.sh uninstall

clean: ## remove what `make` made
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
