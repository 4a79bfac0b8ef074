# The menu. `just` alone lists it.
default:
    @just --list

# Run the example app.
demo *ARGS:
    scripts/demo {{ARGS}}

# All tests of the default run.
test *ARGS:
    scripts/test {{ARGS}}

# Build the example modules from their sources: all, or `just guests rust`.
guests *LANGUAGES:
    scripts/guests {{LANGUAGES}}

# What has to pass before anything lands.
check:
    .ci/run

# Format everything.
fmt:
    cargo fmt --all

# Kill, stop, reload and scale under load; histories are checked for linearizability.
chaos *ARGS:
    scripts/chaos {{ARGS}}

# Throughput and latency beside a bare hyper server and nginx: one table of ratios.
bench *ARGS:
    scripts/bench {{ARGS}}

# Fuzz one target for a while: `just fuzz frames 60`.
fuzz TARGET SECONDS="60":
    scripts/fuzz {{TARGET}} {{SECONDS}}
