"""What a fake plan holds, and its bytes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

_MAGIC = b"fake TensorRT plan\n"


@dataclass(frozen=True)
class Layer:
    """A layer of an engine: its ONNX node's name and operator, the precision it was built in and the one it hands on."""

    name: str
    operator: str
    precision: str
    inputs: list[str]
    outputs: list[str]
    gives: str = ""

    def joined(self, other: Layer) -> Layer:
        first = self.name.removeprefix("{ForeignNode[").removesuffix("]}").split("...")[0]
        return Layer(f"{{ForeignNode[{first}...{other.name}]}}", self.operator, self.precision, self.inputs, other.outputs)


@dataclass(frozen=True)
class Plan:
    """A built engine: what it was built by and for, and the ONNX that it computes."""

    version: str
    gpu: str
    compute_capability: tuple[int, int]
    is_version_compatible: bool
    compatibility: str
    verbosity: int
    name: str
    outputs: list[str]
    profiles: list[dict[str, Any]]
    layers: list[Layer]
    onnx: bytes

    def pack(self) -> bytes:
        facts = asdict(self)
        facts["onnx"] = len(self.onnx)
        head = json.dumps(facts).encode()
        return _MAGIC + len(head).to_bytes(8, "little") + head + self.onnx

    @classmethod
    def unpack(cls, content: bytes) -> Plan | None:
        """Return the plan in some bytes, or None where they are none, or not a whole one."""
        start = len(_MAGIC) + 8
        end = start + int.from_bytes(content[len(_MAGIC) : start], "little")
        try:
            facts = json.loads(content[start:end])
        except ValueError:
            return None
        if not content.startswith(_MAGIC) or len(content) - end != facts.pop("onnx"):
            return None
        facts["compute_capability"] = tuple(facts["compute_capability"])
        facts["layers"] = [Layer(**layer) for layer in facts["layers"]]
        return cls(**facts, onnx=content[end:])
