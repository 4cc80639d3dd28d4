#!/usr/bin/env python3
"""Write down what one version of TensorRT's Python API has, for the contract tests.

    pip download --no-deps tensorrt-cu12-bindings==10.3.0
    python scripts/record_tensorrt_api.py tensorrt_cu12_bindings-10.3.0-cp311-*.whl

makes ``tests/contract/records/10.3.0.json`` from the real module of that wheel: names, signatures and enum values of the
classes listed in ``CLASSES``, no prose. A member whose signature names a class that is not listed is left out with it.
The wheel's module wants ``libnvinfer`` and its sisters, but only when an object is made, so empty libraries in their place
are enough to import it. Needs Linux, gcc and binutils; ``--python`` names an interpreter that fits the wheel's tag. Wheels:
``tensorrt`` (8.5.3.1, cp310, 550 MB, has the bindings inside), ``tensorrt-bindings`` (8.6.1), ``tensorrt-cu12-bindings``
(10.x), ``tensorrt-cu13-bindings`` (10.13 and later).
"""

from __future__ import annotations

import argparse
import ast
import ctypes
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).parents[1] / "tests" / "contract" / "records"
CLASSES = [
    "Builder",
    "BuilderFlag",
    "CalibrationAlgoType",
    "DataType",
    "DeviceType",
    "Dims",
    "EngineCapability",
    "EngineInspector",
    "ErrorCode",
    "ExecutionContextAllocationStrategy",
    "HardwareCompatibilityLevel",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "IInt8Calibrator",
    "IInt8EntropyCalibrator2",
    "IInt8MinMaxCalibrator",
    "ILayer",
    "ILogger",
    "ILogger.Severity",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProfiler",
    "IProgressMonitor",
    "IRuntimeConfig",
    "ITensor",
    "ITimingCache",
    "LayerInformationFormat",
    "LayerType",
    "Logger",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "OnnxParserFlag",
    "ParserError",
    "PreviewFeature",
    "Profiler",
    "ProfilingVerbosity",
    "QuantizationFlag",
    "Runtime",
    "RuntimePlatform",
    "TacticSource",
    "TensorFormat",
    "TensorIOMode",
    "TensorLocation",
    "TilingOptimizationLevel",
]
"""What edgesod's builder and runtime touch, and what a programmer may reach for from there."""
FUNCTIONS = ("get_nv_onnx_parser_version", "init_libnvinfer_plugins", "volume")
"""Not ``nptype``: TensorRT 8.5's fails with numpy 1.24 and later."""
SPECIAL = ("__bool__", "__enter__", "__exit__", "__getitem__", "__iter__", "__len__", "__setitem__")
BUILT_IN = {"int", "float", "bool", "str", "bytes", "list", "tuple", "None", "object", "Any", "Buffer", "Sequence"}

SYSTEM_LIBRARIES = ("libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libdl.so.2", "libpthread.so.0", "librt.so.1")
LOADER = "ld-linux"

DUMP = r"""
import ctypes, json, re, sys, warnings
from pathlib import Path

warnings.simplefilter("ignore")
package = Path(sys.argv[1])
for library in sorted(package.glob("lib*.so*")):
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
sys.path.insert(0, str(package.parent))
import tensorrt

def signatures(thing):
    lines = [re.sub(r"^\d+\. ", "", line.strip()) for line in (getattr(thing, "__doc__", None) or "").splitlines()]
    return [line for line in lines if re.match(r"\w+\(.*\) -> ", line)]

def describe(cls):
    if hasattr(cls, "__members__"):
        return {"values": {name: int(value) for name, value in cls.__members__.items()}}
    entry = {"bases": [base.__name__ for base in cls.__bases__], "methods": {}, "properties": {}}
    entry |= {"settable": [], "special": [], "constants": {}}
    for name, value in vars(cls).items():
        if isinstance(value, type):
            continue
        if hasattr(type(value), "__members__"):
            entry["constants"][name] = str(value)
        elif isinstance(value, property) or type(value).__name__ == "pybind11_static_property":
            found = re.search(r"-> (.+)", (value.fget.__doc__ if value.fget else "") or "")
            entry["properties"][name] = found.group(1) if found else "Any"
            if value.fset is not None:
                entry["settable"].append(name)
        elif name.startswith("__"):
            if name == "__init__" and signatures(value):
                entry["methods"][name] = signatures(value)
            elif callable(value):
                entry["special"].append(name)
        elif callable(value) or isinstance(value, staticmethod):
            entry["methods"][name] = signatures(getattr(value, "__func__", value))
    return entry

def find(dotted):
    thing = tensorrt
    for part in dotted.split("."):
        thing = getattr(thing, part, None)
    return thing

classes = {name: describe(find(name)) for name in json.loads(sys.argv[2]) if find(name) is not None}
functions = {name: signatures(find(name)) for name in json.loads(sys.argv[3]) if find(name) is not None}
constants = {name: str(value) for name, value in vars(tensorrt).items() if type(value).__name__ == "DataType"}
print(json.dumps({"version": tensorrt.__version__, "classes": classes, "functions": functions, "constants": constants}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", default=sys.executable, help="interpreter that fits the wheel's tag")
    parser.add_argument("--out", type=Path, default=RECORDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        package = unpack(options.wheel, Path(scratch))
        add_empty_libraries(package)
        command = [options.python, "-c", DUMP, str(package), json.dumps(CLASSES), json.dumps(FUNCTIONS)]
        record = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    target = options.out / f"{record['version']}.json"
    text = json.dumps(trim(record), indent=1)
    text = re.sub(r'\[\s+("[^"\n]*")\s+\]', r"[\1]", text)  # a method's one signature on the method's line
    target.write_text(text + "\n", encoding="utf-8")
    print(f"{target}: {len(record['classes'])} classes, {target.stat().st_size / 1000:.0f} kB")


def unpack(wheel: Path, folder: Path) -> Path:
    """Unpack the wheel's package as ``folder/tensorrt``, without NVIDIA's libraries, and return that."""
    package = folder / "tensorrt"
    with zipfile.ZipFile(wheel) as archive:
        modules = [name for name in archive.namelist() if re.fullmatch(r"tensorrt\w*/tensorrt\w*\.so", name)]
        if not modules:
            raise SystemExit(f"{wheel.name} has no tensorrt module inside: it only pulls in others")
        inside = modules[0].split("/")[0] + "/"
        for name in archive.namelist():
            if name.startswith(inside) and not name.endswith("/") and not re.search(r"/libnv[^/]*\.so", name):
                target = package / name.removeprefix(inside)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
    return package


def add_empty_libraries(package: Path) -> None:
    """Compile a stand-in for each library the module wants; the first one holds every symbol, each returning null."""
    (module,) = package.glob("tensorrt*.so")
    dynamic = subprocess.run(["readelf", "-d", module], check=True, capture_output=True, text=True).stdout
    wanted = [
        name for name in re.findall(r"\(NEEDED\).*\[(.+?)\]", dynamic) if not name.startswith((*SYSTEM_LIBRARIES, LOADER))
    ]
    listing = subprocess.run(["nm", "-D", "--undefined-only", module], check=True, capture_output=True, text=True).stdout
    system = [ctypes.CDLL(name) for name in SYSTEM_LIBRARIES]
    symbols = {name for name in re.findall(r"^\s+U ([^\s@]+)$", listing, re.M) if not name.startswith(("Py", "_Py"))}
    missing = sorted(name for name in symbols if not any(hasattr(library, name) for library in system))
    for k, name in enumerate(wanted):
        code = "".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in missing) if k == 0 else "int empty;\n"
        compile_it = ["gcc", "-x", "c", "-", "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-o", str(package / name)]
        subprocess.run(compile_it, input=code, check=True, text=True)


def trim(record: dict[str, Any]) -> dict[str, Any]:
    """Turn pybind11's signatures into Python's, and leave out what names a class that is not recorded."""
    known = BUILT_IN | {name.split(".")[-1] for name in record["classes"]} | {"ILogger.Severity"}
    record["functions"] = {name: [python_signature(s) for s in found] for name, found in sorted(record["functions"].items())}
    record["constants"] = dict(sorted(record["constants"].items()))
    record["classes"] = dict(
        sorted(record["classes"].items())
    )  # an enum's values stay as declared: of two names the first counts
    for entry in record["classes"].values():
        if "values" in entry:
            continue
        entry["bases"] = [base for base in entry["bases"] if base in known]
        entry["special"] = sorted(set(entry["special"]) & set(SPECIAL))
        methods = {name: [python_signature(s) for s in found] for name, found in entry["methods"].items()}
        methods = {name: [s for s in found if names_in(s) <= known] for name, found in methods.items()}
        entry["methods"] = {name: found for name, found in sorted(methods.items()) if found}
        properties = {name: plain_type(text) for name, text in entry["properties"].items()}
        entry["properties"] = {name: text for name, text in sorted(properties.items()) if names_in(f"() -> {text}") <= known}
        entry["settable"] = sorted(set(entry["settable"]) & set(entry["properties"]))
    return record


def plain_type(text: str) -> str:
    """Return a type as pybind11 writes it in the words of Python's typing."""
    text = re.sub(r"<[^<>]*>", "...", re.sub(r"<[^<>]*>", "...", text))
    text = re.sub(r"\b(tensorrt(_bindings)?\.)+|\bnv(infer1|onnxparser)::(v_\d_\d::)?", "", text).replace("::", ".")
    text = re.sub(r"\b(typing|typing_extensions|collections\.abc)\.", "", text)
    text = re.sub(r"\bSupportsInt\b", "int", text).replace("SupportsFloat", "float")
    text = re.sub(r"\bList\b", "list", text).replace("Tuple", "tuple").replace("buffer", "Buffer")
    text = text.replace("IParserError", "ParserError").replace("IEngineInspector", "EngineInspector")
    return re.sub(r"\b(capsule|CapsuleType)\b", "Any", text)


def python_signature(text: str) -> str:
    """``f(self: A, b: int = 1) -> C`` without the function's name and without self, as far as Python can say it."""
    text = plain_type(text[text.index("(") :])
    text = re.sub(r"^\((self: [\w.]+|self)(, )?", "(", text)
    try:
        ast.parse(f"def f{text}: ...")
    except SyntaxError:  # a parameter without a default behind one that has it, in pybind11 only
        text = re.sub(r"(: [\w\[\].]+)(?=[,)])", r"\1 = ...", text)
        ast.parse(f"def f{text}: ...")
    return text


def names_in(signature: str) -> set[str]:
    """Return the types that a signature names, ``A.B`` as one."""
    found: set[str] = set()
    function = ast.parse(f"def f{signature}: ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    for annotation in [*(argument.annotation for argument in function.args.args), function.returns]:
        if annotation is not None:
            found |= set(re.findall(r"[A-Za-z_][\w.]*", ast.unparse(annotation)))
    return found


if __name__ == "__main__":
    main()
