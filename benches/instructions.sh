#!/usr/bin/env bash
# Instructions of one call per four multiply-adds, on AArch64 with NEON under QEMU: what a vector instruction does is the
# unit, so 1 would be multiply-adds and nothing else. Padded taps count as multiply-adds (ConvDesc::flops / 2); weights are
# packed beforehand. The counts are repeatable: those of a program that makes one call, less those of one that makes none.
#
#   benches/instructions.sh                            every layer, pass and layout (some minutes)
#   benches/instructions.sh --at-most 1.6 v4 r2        some layers; fails where a count is above the bound
#   PASSES=forward LAYOUTS='nchw nhwc' benches/instructions.sh
#
# Needs cc, aarch64-linux-gnu-gcc, QEMU with plugins (Debian: qemu-user, not qemu-user-static) and a Rust compiler with the
# standard library of aarch64-unknown-linux-gnu (RUSTC).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=aarch64-unknown-linux-gnu
read -ra passes <<<"${PASSES:-forward backward_input backward_weight}"
read -ra layouts <<<"${LAYOUTS:-nchw nhwc}"
at_most=1000000
if [[ ${1-} == --at-most ]]; then
    at_most=$2
    shift 2
fi
layers=("$@")
if ((${#layers[@]} == 0)); then
    layers=(d1 d2 d3 d4 v1 v2 v3 v4 r1 r2 r3 g1 t1 t2 t3 c1 c2)
fi

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER:-aarch64-linux-gnu-gcc}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cc -O2 -shared -fPIC -o "$scratch/count.so" benches/instructions.c ${QEMU_PLUGIN_INTERFACE:+-DINTERFACE="$QEMU_PLUGIN_INTERFACE"}
cargo bench --locked --no-default-features --no-run --bench instructions --target "$target" 2>&1 | tee "$scratch/build" >&2
program=$(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' "$scratch/build")

# Prints the multiply-adds of one call; the count goes to standard error.
run() { qemu-aarch64 -L "${QEMU_LD_PREFIX:-/usr/aarch64-linux-gnu}" -plugin "$scratch/count.so" "$program" "$@"; }

printf '| layer |'
for pass in "${passes[@]}"; do for layout in "${layouts[@]}"; do printf ' %s %s |' "$pass" "$layout"; done; done
printf '\n|:--|'
for _ in "${passes[@]}"; do for _ in "${layouts[@]}"; do printf -- '--:|'; done; done
printf '\n'
above=0
for layer in "${layers[@]}"; do
    printf '| %s |' "$layer"
    for pass in "${passes[@]}"; do
        for layout in "${layouts[@]}"; do
            for calls in 0 1; do
                multiply_adds=$(run "$layer" "$pass" "$layout" neon "$calls" 2>"$scratch/$calls")
                counts[calls]=$(sed -n 's/^instructions: //p' "$scratch/$calls")
            done
            ratio=$(awk -v n="$((counts[1] - counts[0]))" -v useful="$multiply_adds" 'BEGIN { printf "%.2f", 4 * n / useful }')
            printf ' %s |' "$ratio"
            if awk -v ratio="$ratio" -v most="$at_most" 'BEGIN { exit !(ratio > most + 0) }'; then above=1; fi
        done
    done
    printf '\n'
done
exit "$above"
