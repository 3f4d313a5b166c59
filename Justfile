# List what can be done
default:
    @just --list

# Everything that must hold before a change lands, but for the tests
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

# All tests
test:
    cargo test --workspace

# A run that is killed at 200 moments and resumed, against a model
kills COUNT="200":
    REIVER_KILLS={{COUNT}} cargo test -p reiver-cli --test command killed_at_any_moment

# The mixed load with cancels, panics and late jobs at random: nothing lost, memory flat
soak SECONDS="600" *ARGS:
    cargo test --release -p reiver --test soak -- --seconds {{SECONDS}} {{ARGS}}

# Measured comparisons with peers: everything, a suite, or suite/case; --quick, --list, --help
bench *ARGS:
    cargo build --release -p reiver-cli
    cargo run --release -p reiver-bench $(c++ --version >/dev/null 2>&1 && echo --features snmalloc) -- {{ARGS}}

# A few microbenchmarks, all in one process
micro *ARGS:
    cargo bench -p reiver-bench --bench fork_join --bench pools {{ARGS}}

# The promises about nodes: on described and on emulated machines, or with --here on this one
numa-test *ARGS:
    cargo test -p reiver-numa-tests {{ if ARGS =~ '^--here' { "--test machines -- " + ARGS } else { ARGS } }}

# A kernel for emulated machines, from Debian's package and not installed
numa-kernel:
    numa-tests/get-kernel

# Run a file of jobs
run *ARGS:
    cargo run --release -- run {{ARGS}}

# The library's documentation, in a browser
doc:
    cargo doc --workspace --no-deps --open

# Every interleaving of the protocols, in models
loom:
    RUSTFLAGS="--cfg reiver_loom" cargo test -p reiver -p reiver-pool --release --target-dir target/loom --test 'loom_*'

# Memory that pools lose or use wrongly, under valgrind
leaks:
    engine/pool/leaks

# Parsers, planner, machines and journals against random input, a minute each (needs nightly and cargo-fuzz)
fuzz SECONDS="60":
    for form in toml jsonl text xml journal; do cargo +nightly fuzz run $form fuzz/target/corpus/$form fuzz/seeds/$form -- -max_total_time={{SECONDS}} -max_len=4096; done
