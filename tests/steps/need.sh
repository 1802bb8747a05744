# What the steps need, installed where it is missing. Debian's packages; elsewhere the same things under other names.
# Tools come built, from Debian or PyPI, where either has them: building them takes longer than most steps.

need() { # steps…: what all of them need, and then each of these
  missing=()
  want gcc has cc
  want g++ has c++
  want libc6-dev compiles ''
  want make has make
  want pkg-config has pkg-config
  want procps has pkill
  want python3 has python3
  want python3-venv python3 -c 'import ensurepip, venv'
  want softhsm2 has softhsm2-util
  want opensc has pkcs11-tool
  want swtpm has swtpm
  want libtpm2-pkcs11-1 there '/usr/lib/*/pkcs11/libtpm2_pkcs11.so'
  want qemu-system-arm has qemu-system-arm
  want strace has strace
  [ $# -eq 0 ] || wanted "$@"
  [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
  component clippy
  component rustfmt
  local target step
  for target in thumbv7em-none-eabihf thumbv7m-none-eabi; do
    rustup target list --installed 2>/dev/null | grep "^$target$" >/dev/null ||
      timeout 300 rustup target add "$target" || install_packages rustc-web rust-web-src lld
  done
  # For the second reader, and for files that another program has encrypted.
  python_packages target/venv cryptography blake3
  for step in "$@"; do
    ! is_function "need_$step" || "need_$step"
  done
}

# The packages of each of these steps.
wanted() { # steps…
  local step
  for step in "$@"; do
    case $step in
      kryoptic | constant_time)
        # libclang-cpp.so is something else; and without its headers libclang finds no stddef.h.
        want libclang-dev there '/usr/lib/llvm-*/lib/libclang.so*' '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' ;;&
      kryoptic)
        want libssl-dev there /usr/include/openssl/ssl.h
        want libsqlite3-dev there /usr/include/sqlite3.h ;;
      constant_time) want valgrind has valgrind ;;
      benchmark) want age has age ;;
      # The fuzzed reader of the board has 32 bits.
      fuzzing_boards) [ "$(uname -m)" != x86_64 ] || want g++-multilib compiles -m32 ;;
    esac
  done
}

want() { # package command…: the package is missing if the command fails
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

has() { command -v "$1" >/dev/null; }

there() { # patterns…: for each there is a file
  local pattern
  for pattern in "$@"; do compgen -G "$pattern" >/dev/null || return; done
}

compiles() { echo 'int main() { return 0; }' | c++ $1 -x c++ -o /dev/null -; }

is_function() { [ "$(type -t "$1")" = function ]; }

install_packages() {
  local sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  if ! has apt-get; then
    echo "tests/run: install these (Debian's names): $*" >&2
    exit 1
  fi
  $sudo env DEBIAN_FRONTEND=noninteractive sh -c "apt-get update -q && apt-get install -qy --no-install-recommends $*" >&2
}

component() { # name toolchain…: of rustup
  local name=$1
  shift
  rustup component list --installed "$@" | grep "^$name" >/dev/null || rustup component add "$@" "$name"
}

nightly() {
  rustup toolchain list | grep ^nightly >/dev/null || rustup toolchain install nightly --profile minimal
}

python_packages() { # environment packages…
  local environment=$1
  shift
  [ -x "$environment/bin/python" ] || python3 -m venv "$environment"
  "$environment/bin/python" -m pip install --quiet "$@"
}

# Built for PyPI by Astral, of the sources on crates.io; for machines that it has no wheel for, from those.
built_tool() { # name version
  [ ! -x "$tools/bin/$1" ] || return 0
  if python_packages "$tools/venv" "astral-dev-toolchain-$1==$2" --only-binary :all: --no-deps; then
    mkdir -p "$tools/bin"
    ln -sf "../venv/bin/$1" "$tools/bin/$1"
  else
    tool "$1" "$2"
  fi
}

# Unoptimised: they are built more often than they work hard.
tool() { # name version
  [ -x "$tools/bin/$1" ] || CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --root "$tools" "$1@$2"
}
