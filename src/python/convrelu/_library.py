"""The C interface of the crate: its header, read into ctypes structures, and its shared library.

The wheel carries both, as they were when it was built. Structures, constants and functions are those that the header declares:
nothing of it is written down a second time here.
"""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HEADER = HERE / "convrelu.h"
LIBRARY = HERE / {"darwin": "libconvrelu.dylib", "win32": "convrelu.dll"}.get(sys.platform, "libconvrelu.so")

_SCALARS: dict[str, Any] = {
    "size_t": ctypes.c_size_t,
    "uint32_t": ctypes.c_uint32,
    "float": ctypes.c_float,
    "convrelu_status": ctypes.c_uint32,
}


class Header:
    """What a header made by cbindgen declares.

    `structs` by name, `constants` (integers) by name, `functions` as argument types by name.
    """

    def __init__(self, text: str) -> None:
        text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)
        self.constants = {name: int(value) for name, value in re.findall(r"#define (CONVRELU_\w+) (\d+)", text)}
        statuses = re.findall(r"(CONVRELU_\w+) = (\d+),", text)
        self.constants.update((name, int(value)) for name, value in statuses)
        self.structs: dict[str, Any] = {}
        for body, name in re.findall(r"typedef struct \{([^}]*)\} (\w+);", text):
            fields = [self._field(field) for field in body.split(";") if field.strip()]
            self.structs[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
        self.functions = {
            name: [self._type(argument) for argument in arguments.split(",")]
            for name, arguments in re.findall(r"convrelu_status (convrelu_\w+)\(([^)]*)\);", text)
        }

    def _field(self, text: str) -> tuple[str, Any]:
        match = re.fullmatch(r"\s*(.*?)(\w+)(?:\[(\d+)\])?\s*", text, flags=re.S)
        if match is None:
            raise ValueError(f"convrelu.h: cannot read the field {text!r}")
        kind, name, count = match.groups()
        what = self._type(kind)
        return name, what * int(count) if count else what

    def _type(self, text: str) -> Any:
        """The type of a field, or of an argument with its name behind it. Pointers carry no type: they are addresses."""
        words = text.replace("const ", "").split()
        if "*" in text or words[0] in ("convrelu_parallel_for", "convrelu_task"):
            return ctypes.c_void_p
        if words[0] not in _SCALARS and words[0] not in self.structs:
            raise ValueError(f"convrelu.h: unknown type in {text!r}")
        return _SCALARS.get(words[0]) or self.structs[words[0]]


def _load() -> tuple[Header, ctypes.CDLL]:
    for path in (HEADER, LIBRARY):
        if not path.is_file():
            raise ImportError(
                f"{path} is missing: these are the package's sources (perhaps those in the current folder), which "
                "do not work alone; `pip install ./src/python` builds and installs the package"
            )
    header = Header(HEADER.read_text(encoding="utf-8"))
    library = ctypes.CDLL(str(LIBRARY))
    for name, arguments in header.functions.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = ctypes.c_uint32
    abi = ctypes.c_uint32()
    library.convrelu_abi(ctypes.byref(abi), None)
    if abi.value != header.constants["CONVRELU_ABI"]:
        wanted = header.constants["CONVRELU_ABI"]
        raise ImportError(f"{LIBRARY} has the interface {abi.value}: it must be {wanted}; install the package anew")
    return header, library


header, library = _load()
constants = header.constants
structs = header.structs
#: Runs the tasks of a call on the threads of the library.
parallel_for = ctypes.cast(library.convrelu_python_parallel_for, ctypes.c_void_p).value

Error = structs["convrelu_error"]


def new(name: str, **fields: Any) -> Any:
    """A structure of this name, all zeros but its size and the fields that are given."""
    struct = structs[name]()
    struct.struct_size = ctypes.sizeof(struct)
    for field, value in fields.items():
        setattr(struct, field, value)
    return struct


def initialised(name: str) -> Any:
    """A structure as the library's initialiser of this name fills it."""
    struct = structs[name]()
    call(name + "_init", ctypes.byref(struct), ctypes.sizeof(struct))
    return struct


def message(error: Any) -> str:
    """The sentence of an error: the argument, its value, and the rule it breaks."""
    text = ctypes.create_string_buffer(512)
    library.convrelu_error_message(ctypes.byref(error), ctypes.addressof(text), len(text), None)
    return text.value.decode()


def call(name: str, *arguments: Any) -> None:
    """Calls a function of the library.

    Raises `ValueError` with the library's sentence where it refuses.
    """
    error = Error(struct_size=ctypes.sizeof(Error))
    if getattr(library, name)(*arguments, ctypes.byref(error)) != 0:
        raise ValueError(message(error))


def version() -> str:
    """The version of the library: `major.minor.patch`."""
    numbers = [ctypes.c_uint32() for _ in range(3)]
    call("convrelu_version", *(ctypes.byref(number) for number in numbers))
    return ".".join(str(number.value) for number in numbers)


_ISAS = {
    number: name.removeprefix("CONVRELU_ISA_").lower() for name, number in constants.items() if name.startswith("CONVRELU_ISA_")
}


def isa() -> str:
    """The instruction set that the kernels use on this machine: `avx512`, `avx2`, `neon` or `scalar`."""
    number = ctypes.c_uint32()
    call("convrelu_isa_detect", ctypes.byref(number))
    return _ISAS.get(number.value, str(number.value))
