#!/bin/sh
# Says in one line what this machine lacks to build Duramen; `preflight.sh python` prints the interpreter to use.
set -eu

python=
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$(command -v "$candidate")
        break
    fi
done
if [ "${1:-}" = python ]; then
    printf '%s\n' "$python"
    exit
fi

complain() {
    printf 'duramen: %s\n' "$1" >&2
    missing=1
}
missing=

[ -n "$python" ] ||
    complain 'Python 3.11 or newer is needed; install it (Debian, Ubuntu: apt install python3 python3-venv) or name it with PYTHON=.'
[ -z "$python" ] || "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    complain "$python cannot make virtual environments; install the module (Debian, Ubuntu: apt install python3-venv)."

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
rustup="install it with rustup, see https://rustup.rs (a distribution's own package is often too old)."
if ! command -v cargo >/dev/null 2>&1; then
    complain "Rust $wanted or newer is needed (cargo was not found); $rustup"
elif ! found=$(rustc --version 2>/dev/null | cut -d' ' -f2) || [ -z "$found" ]; then
    complain "cargo is here but rustc does not run; $rustup"
elif [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -t. -k1,1n -k2,2n | head -n 1)" != "$wanted" ]; then
    complain "Rust $wanted or newer is needed, this is $found; $rustup"
fi

command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || command -v clang >/dev/null 2>&1 ||
    complain 'A C compiler is needed for the bundled SQLite (Debian, Ubuntu: apt install build-essential; macOS: xcode-select --install).'

[ -z "$missing" ]
