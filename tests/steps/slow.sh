# The steps of a slice, and of `--long`, where they do more.

tests_as_released() { cargo test --workspace --release; }

need_header() { tool cbindgen 0.29.4; }

# It is kept in the tree, so that a build of the library needs no cbindgen.
header() {
  cbindgen --quiet --config host/capi/cbindgen.toml --verify host/capi -o host/capi/include/modelseal.h
  count "the C library's header: as cbindgen makes it"
}

need_coverage() {
  component llvm-tools
  built_tool cargo-llvm-cov 0.9.1
}

# docs/CONTRIBUTING.md lists the lines that no test of core's own can reach.
coverage() {
  CARGO_LLVM_COV_TARGET_DIR=target/coverage cargo llvm-cov --package modelseal-core --all-features \
    --show-missing-lines --ignore-filename-regex wycheproof --fail-under-lines 95 -- --nocapture 2>&1 |
    tee target/coverage.txt
  count "coverage of core: $(awk '$1 == "TOTAL" { print $10 " of " $8 " lines" }' target/coverage.txt)"
  cargo test --package modelseal-hsm --lib wycheproof -- --nocapture | tee target/wycheproof.txt
  count "known answers (Wycheproof): $(grep -ohE '[0-9]+ of [0-9]+ vectors ran' target/coverage.txt target/wycheproof.txt |
    awk '{ n += $1 } END { print n " in " NR " sets" }')"
}

need_miri() {
  nightly
  component miri --toolchain nightly
  component rust-src --toolchain nightly
}

# There is no unsafe in core: what miri looks at is what core does with its dependencies. Signatures and key exchange
# would take it hours.
miri() {
  CARGO_TARGET_DIR=target/miri cargo +nightly miri test --package modelseal-core --all-features | tee target/miri.txt
  count "core under miri: $(awk '/^test result/ { n += $4; out += $8 } END { print n " tests, " out " left out" }' \
    target/miri.txt)"
}

need_mutants() { tool cargo-mutants 27.1.0; }

# Of core, by core's own tests.
mutants() {
  counted "mutants of core:" tests/mutants ${long:+--all}
}

need_fuzzing_hosts() {
  nightly
  built_tool cargo-fuzz 0.13.2
}

fuzzing_hosts() { fuzzing --hosts; }

need_fuzzing_boards() {
  need_fuzzing_hosts
  [ "$(uname -m)" != x86_64 ] || rustup target add --toolchain nightly i686-unknown-linux-gnu
}

fuzzing_boards() { fuzzing --boards; }

fuzzing() { # whose
  counted "" tests/fuzz/run "$1" $([ -z "$long" ] && echo 20 || echo 600)
}

constant_time() {
  if [ "$(uname -m)" != x86_64 ]; then
    count "constant time: NOT LOOKED AT: this machine isn't x86-64"
    return
  fi
  counted "" tests/valgrind/run ${long:+--long}
}

# The shipped image, in an emulator that skips instructions and flips their bits.
glitches() {
  counted "" tests/glitch/run ${long:+--long}
}

# Against docs/BENCHMARKS.md, which says how to publish what became worse for a reason.
cost() {
  counted "" cargo run --quiet --package modelseal-tests --bin cost
}

benchmark() {
  counted "" tests/bench/run --short
}
