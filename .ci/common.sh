# shellcheck shell=bash
# For the scripts beside this one, which source it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Seconds since the script began, and what comes next.
step() { printf '\n== %4d s: %s\n' "$SECONDS" "$*"; }

# alone COMMAND…: waits until no script beside this one installs anything.
alone() { flock .ci/common.sh "$@"; }

# need COMMAND PACKAGE: installs Debian's package where there is no such command (or file, if it begins with a slash).
need() {
    if ! command -v "$1" >/dev/null && [[ ! -e $1 ]]; then
        printf 'installing %s\n' "$2"
        alone apt-get -qq update
        DEBIAN_FRONTEND=noninteractive alone apt-get -qq install -y --no-install-recommends "$2" >/dev/null
        hash -r
        command -v "$1" >/dev/null || [[ -e $1 ]]
    fi
}

# Where cargo builds. Scripts that share nothing with others take a folder of their own there: two builds in one folder wait for
# each other.
base=$(realpath -m "${CARGO_TARGET_DIR:-target}")
own_folder() { export CARGO_TARGET_DIR=$base/$1; }

# For cargo, a compiler that builds for every target (and, with -Zbuild-std, their standard library).
use_foreign_toolchain() {
    local prefix
    prefix=$base/foreign-toolchain
    alone .ci/foreign-toolchain "$prefix"
    export RUSTC=$prefix/bin/rustc RUSTDOC=$prefix/bin/rustdoc RUSTC_BOOTSTRAP=1
}

# counted NAME COMMAND…: runs tests, shows all but those that pass, and fails where a test binary has run none.
counted() {
    local name=$1 log=$scratch/tests.log passed
    shift
    "$@" 2>&1 | tee "$log" | sed '/^test .* ok$/d; /has been running for over/d; /warning: TCG doesn.t support requested feature/d; /uncaught target signal/d'
    passed=$(sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p' "$log")
    if [[ -z $passed || $'\n'$passed$'\n' == *$'\n0\n'* ]]; then
        echo "$name: no tests were run" >&2
        return 1
    fi
    printf '%s: %d tests passed\n' "$name" $((${passed//$'\n'/+}))
}

# linted CARGO…: with Clippy's compiler for what is in this folder, whose warnings are errors. `cargo clippy` would check hundreds of
# dependencies that the tests build anyhow.
linted() {
    RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__ "$@"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Nothing here is built twice, and nothing is debugged. (A panic says where it was without that.)
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0
