# The steps of every run.

format() { cargo fmt --all --check; }

clippy() { cargo clippy --workspace --all-targets --all-features -- -D warnings; }

documentation() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps; }

need_dependencies() { built_tool cargo-deny 0.20.2; }

# The database of advisories comes from the network; where that can't be reached the rest is checked all the same,
# and the table says so.
dependencies() {
  cargo deny check bans licenses sources
  if cargo deny fetch db; then
    cargo deny check advisories
    count "dependencies: no advisory, licences, sources, one version of each primitive"
  else
    count "dependencies: licences, sources, one version of each primitive; ADVISORIES NOT CHECKED, for want of their database"
  fi
}

# The tests run the real programs: the debug one for speed of building, the release one for what is measured.
build() {
  cargo build --workspace
  cargo build --release
}

bare_metal() {
  local features
  for features in "" aes-gcm chacha20-poly1305 aes-gcm,ed25519,x25519 chacha20-poly1305,p256,x25519 \
    aes-gcm,chacha20-poly1305,ed25519,p256,x25519; do
    echo "modelseal-core: ${features:-no features}"
    RUSTFLAGS="-D warnings" cargo check --quiet --package modelseal-core --no-default-features \
      --features "$features" --target thumbv7em-none-eabihf --target-dir target/bare-metal
  done
  # On a PC the boards' images are empty.
  local board
  for board in mps2-an386:thumbv7em-none-eabihf lm3s6965evb:thumbv7m-none-eabi; do
    echo "${board%:*}"
    cargo clippy --quiet --package "modelseal-board-${board%:*}" --target "${board#*:}" --target-dir target/bare-metal \
      -- -D warnings
  done
}

# A second token for the tests, which load it at run time.
kryoptic() {
  cargo build --locked --manifest-path tests/kryoptic/Cargo.toml --target-dir target/kryoptic
}

tests() { cargo test --workspace; }

# Into a fresh virtual environment, as users install it. PyTorch is several GB, and its tests are left out without it.
python_package() {
  rm -rf target/python
  CARGO_TARGET_DIR=$PWD/target python_packages target/python ./host/python
  python_packages target/python ${long:+torch} pytest mypy numpy ml_dtypes safetensors cryptography tqdm \
    onnxruntime tflite_micro ai-edge-litert pymicro-wakeword
  # Wanted are its models, and not what it runs them with.
  python_packages target/python --no-deps silero-vad
  counted "Python package:" target/python/bin/python -m pytest --quiet ${long:+--long} host/python
}

# Written from docs/FORMAT.md alone, in Python: it recomputes the worked example, and agrees with the program on
# what opens and on why the rest doesn't.
second_reader() {
  target/venv/bin/python tests/vectors/reader.py example docs/FORMAT.md
  counted "second reader, vectors:" target/venv/bin/python tests/vectors/reader.py run tests/vectors/cases
  counted "second reader, files of the program:" \
    target/venv/bin/python tests/vectors/compare.py target/release/modelseal
}

# Without a C compiler's part, all of the library's own tests.
portable() {
  cargo clippy --package modelseal --no-default-features --all-targets -- -D warnings
  cargo test --package modelseal --no-default-features --lib
}

demo() { target/release/modelseal demo; }
