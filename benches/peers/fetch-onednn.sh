#!/usr/bin/env bash
# Fetches oneDNN 3.2 for x86-64 Linux (GNU OpenMP) from PyPI into a folder (default: ./onednn) and prints the path of its
# library: export DNNL_LIB="$(benches/peers/fetch-onednn.sh)"
set -euo pipefail

folder=${1:-onednn}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
library=$folder/onednn_cpu_gomp-2023.2.0.data/data/lib/libdnnl.so
if [[ ! -e $library ]]; then
    python3 -m pip download --quiet --no-deps --dest "$folder" onednn-cpu-gomp==2023.2.0 >&2
    python3 -m zipfile -e "$folder"/onednn_cpu_gomp-2023.2.0-*.whl "$folder"
fi
# A wheel holds copies where the library's build had links.
[[ -s $library ]] || { echo "$library is missing from the wheel" >&2; exit 1; }
printf '%s\n' "$library"
