"""Builds the shared library with cargo, and puts it into the wheel beside the header it was built with and the list of
layers that are timed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# What cargo calls the library, and what the package calls it (`convrelu/_library.py`).
NAMES = {
    "darwin": ("libconvrelu_python.dylib", "libconvrelu.dylib"),
    "win32": ("convrelu_python.dll", "convrelu.dll"),
}


class Hook(BuildHookInterface):  # noqa: D101
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        here = Path(self.root).resolve()
        crate = here.parents[1]
        header = crate / "src/capi/convrelu.h"
        if not header.is_file() or not (crate / "Cargo.toml").is_file():
            sys.exit(
                f"convrelu: {here} does not lie in the repository of the crate: {header} is missing. The package is built from "
                "the repository (`pip install ./src/python` in its root), because it compiles the crate."
            )
        cargo = os.environ.get("CARGO") or shutil.which("cargo")
        if cargo is None:
            sys.exit("convrelu: cargo is missing. Install Rust 1.89 or later (https://rustup.rs), the only compiler needed.")
        manifest = here / "native/Cargo.toml"
        target = Path(os.environ.get("CARGO_TARGET_DIR") or crate / "target").absolute()
        command = [cargo, "build", "--release", "--locked", "--manifest-path", str(manifest), "--target-dir", str(target)]
        done = subprocess.run(command, check=False)
        if done.returncode != 0:
            sys.exit(f"convrelu: `{' '.join(command)}` failed with exit status {done.returncode}; its messages stand above.")
        built, named = NAMES.get(sys.platform, ("libconvrelu_python.so", "libconvrelu.so"))
        build_data["force_include"][str(target / "release" / built)] = f"convrelu/{named}"
        build_data["force_include"][str(header)] = "convrelu/convrelu.h"
        build_data["force_include"][str(crate / "benches/peers/shapes")] = "convrelu/shapes"
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
