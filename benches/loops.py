#!/usr/bin/env python3
"""What llvm-mca says of the AVX-512 loops, for CPUs that are not at hand.

    cargo build --release --manifest-path benches/peers/Cargo.toml --no-default-features
    python3 benches/loops.py benches/peers/target/release/convrelu-peers

Finds the innermost loops of the library's AVX-512 code that hold at least 24 multiply-adds. For each it prints the
multiply-adds, maxima and loads of a trip, vectors that are spilled to the stack, and for each CPU the cycles of a trip as
simulated and as the busiest port alone would take. Needs objdump and LLVM 19's llvm-mca (or another, in LLVM_MCA).
"""

import os
import re
import subprocess
import sys

CPUS = ["znver4", "sapphirerapids"]
MCA = os.environ.get("LLVM_MCA", "llvm-mca-19")
TRIPS = 200


def functions(binary):
    """Instructions, as (address, text), of each function that holds the library's AVX-512 code."""
    dump = subprocess.run(["objdump", "-d", "--no-show-raw-insn", binary], capture_output=True, text=True, check=True)
    name, body = None, []
    for line in dump.stdout.splitlines() + ["0 <end>:"]:
        if start := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            if name and "x86" in name and "V4" in name and any("zmm" in text for _, text in body):
                yield body
            name, body = start[1], []
        elif instruction := re.match(r"\s*([0-9a-f]+):\t(.*)$", line):
            body.append((int(instruction[1], 16), instruction[2].split("#")[0].strip()))


def target(text):
    jump = re.match(r"j\w+\s+([0-9a-f]+)", text)
    return int(jump[1], 16) if jump else None


def innermost_loops(body):
    index = {address: i for i, (address, _) in enumerate(body)}
    for end, (_, text) in enumerate(body):
        start = index.get(target(text), end)
        if start >= end:
            continue
        loop = body[start : end + 1]
        if not any(target(t) is not None and loop[0][0] <= target(t) <= address for address, t in loop[:-1]):
            yield [re.sub(r"^(j\w+)\s.*", r"\1 .Lloop", re.sub(r"<.*>", "", t)) for _, t in loop if "nop" not in t]


def simulate(loop, cpu):
    result = subprocess.run(
        [MCA, f"-mcpu={cpu}", f"-iterations={TRIPS}"],
        input="\n".join([".Lloop:", *loop, ""]),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    cycles = int(re.search(r"Total Cycles:\s+(\d+)", result)[1]) / TRIPS
    return cycles, float(re.search(r"Block RThroughput:\s+([\d.]+)", result)[1])


def main():
    seen = {}
    for body in functions(sys.argv[1]):
        for loop in innermost_loops(body):
            count = lambda pattern: sum(bool(re.search(pattern, text)) for text in loop)
            products = count(r"vf(n)?m(add|sub).*mm")
            if products < 24:
                continue
            key = (products, count(r"^vmax"), count(r"^v.*\(%r[^s]"), count(r"mm.*\(%rsp|\(%rsp.*mm"))
            times = [simulate(loop, cpu) for cpu in CPUS]
            best = seen.setdefault(key, [0, times])
            best[0] += 1
            best[1] = [max(pair) for pair in zip(best[1], times)]
    print("| multiply-adds | maxima | loads | spills | loops |" + "".join(f" {c}: cycles | its busiest port |" for c in CPUS))
    print("|--:" * (5 + 2 * len(CPUS)) + "|")
    for key, (loops, times) in sorted(seen.items(), reverse=True):
        print("|", " | ".join(map(str, (*key, loops))), "|", " | ".join(f"{c:.1f} | {b:.1f}" for c, b in times), "|")
    share = [min(b / c for _, times in seen.values() for c, b in [times[i]]) for i in range(len(CPUS))]
    print(f"\nspills: {sum(k[3] > 0 for k in seen)}; least share of the port's bound:", dict(zip(CPUS, [round(s, 2) for s in share])))


main()
