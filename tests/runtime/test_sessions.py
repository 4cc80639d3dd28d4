"""One contract, every backend: what a session takes, returns, refuses and lets go of."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgesod.errors import BackendError, EdgesodError, InputError
from edgesod.runtime import MemorySession, Session, available_backends, open_session
from edgesod.runtime.cuda import VARIABLE
from tests.contract.fake_tensorrt import make_fake
from tests.contract.record import VERSIONS, load
from tests.helpers.engines import INPUT, OUTPUT, run_tiny, write_tiny
from tests.helpers.tensorrt import write_plan

INSTALLED = [name for name, state in available_backends().items() if state.is_usable and name != "tensorrt"]
"""Those that read ONNX."""


@pytest.fixture(params=["memory", "tensorrt", "onnxruntime", "openvino"])
def session(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    if request.param == "tensorrt":
        fake = make_fake(load(VERSIONS[-1]))
        monkeypatch.setitem(sys.modules, "tensorrt", fake)
        monkeypatch.setenv(VARIABLE, "memory")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        opened: Session = open_session(write_plan(tmp_path / "tiny.plan", fake), "fp32")
    elif request.param == "memory":
        opened = MemorySession(lambda feeds: {"saliency": run_tiny(feeds["image"])}, [INPUT], [OUTPUT])
    elif request.param in INSTALLED:
        opened = open_session(write_tiny(tmp_path / "tiny.onnx"), "fp32", request.param, threads=1)
    else:
        pytest.skip(f"{request.param} is not installed")
    with opened:
        yield opened


def _feed(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, INPUT.shape).astype(np.float32)


def test_names_its_tensors(session: Session) -> None:
    assert session.inputs == (INPUT,)
    assert session.outputs == (OUTPUT,)
    assert session.backend in ("memory", "tensorrt", *INSTALLED)


def test_computes_what_numpy_computes(session: Session) -> None:
    feed = _feed()
    outputs = session.run({"image": feed})
    assert list(outputs) == ["saliency"]
    np.testing.assert_allclose(outputs["saliency"], run_tiny(feed), atol=1e-5)


def test_outputs_belong_to_the_caller(session: Session) -> None:
    first = session.run({"image": _feed(0)})["saliency"]
    copy = first.copy()
    second = session.run({"image": _feed(1)})["saliency"]
    np.testing.assert_array_equal(first, copy)
    assert not np.shares_memory(first, second)
    session.close()
    np.testing.assert_array_equal(first, copy)
    first[:] = 0


def test_inputs_are_left_alone_and_not_kept(session: Session) -> None:
    feed = _feed(0)
    expected = session.run({"image": feed})["saliency"]
    np.testing.assert_array_equal(feed, _feed(0))
    feed[:] = 0
    np.testing.assert_array_equal(session.run({"image": _feed(0)})["saliency"], expected)


def test_takes_views(session: Session) -> None:
    wide = np.repeat(_feed(), 2, axis=3)
    np.testing.assert_allclose(session.run({"image": wide[..., ::2]})["saliency"], run_tiny(_feed()), atol=1e-5)


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, r"\['image'\], got \[\]"),
        ({"picture": _feed()}, r"\['image'\], got \['picture'\]"),
        ({"image": _feed(), "more": _feed()}, r"got \['image', 'more'\]"),
        ({"image": _feed()[0]}, r"\(1, 3, 32, 48\), got float32 \(3, 32, 48\)"),
        ({"image": _feed()[..., 1:]}, r"got float32 \(1, 3, 32, 47\)"),
        ({"image": _feed().astype(np.float64)}, r"float32 \(1, 3, 32, 48\), got float64"),
        ({"image": None}, "got a NoneType"),
        ({"image": _feed().tolist()}, "got a list"),
    ],
)
def test_refuses_other_feeds(session: Session, feeds: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(InputError, match=words):
        session.run(feeds)


def test_closing(session: Session) -> None:
    session.close()
    session.close()
    with pytest.raises(BackendError, match="closed"):
        session.run({"image": _feed()})


def test_works_in_another_thread(session: Session) -> None:
    found: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: found.append(session.run({"image": _feed()})["saliency"]))
    thread.start()
    thread.join()
    np.testing.assert_allclose(found[0], run_tiny(_feed()), atol=1e-5)


@pytest.mark.parametrize("backend", INSTALLED)
@pytest.mark.parametrize("content", [b"", b"this is no network" * 50, "half", "folder", "missing"])
def test_files_that_are_no_network(
    backend: str, content: bytes | str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    if content == "half":
        whole = write_tiny(path).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.onnx"):
        open_session(path, "fp32", backend)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("backend", INSTALLED)
def test_shapes_that_are_not_fixed(backend: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not fixed"):
        open_session(write_tiny(tmp_path / "m.onnx", ("height", 48)), "fp32", backend)


@pytest.mark.parametrize("backend", INSTALLED)
def test_other_names_and_several_outputs(backend: str, tmp_path: Path) -> None:
    with open_session(write_tiny(tmp_path / "m.onnx", input_name="input.1", outputs=3), "fp32", backend) as session:
        assert [t.name for t in session.inputs] == ["input.1"]
        assert [t.name for t in session.outputs] == ["saliency", "side1", "side2"]
        outputs = session.run({"input.1": _feed()})
    for name in ("saliency", "side1", "side2"):
        np.testing.assert_allclose(outputs[name], run_tiny(_feed()), atol=1e-5)


def test_bf16_or_a_reason_why_not(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "m.onnx")
    with pytest.raises(BackendError, match="bf16"):
        open_session(path, "bf16", "onnxruntime")
    if "openvino" not in INSTALLED:
        pytest.skip("openvino is not installed")
    from edgesod.runtime.openvino_session import capabilities

    if "BF16" not in capabilities():
        with pytest.raises(BackendError, match="bf16"):
            open_session(path, "bf16")
        return
    with open_session(path, "bf16") as session:
        assert session.backend == "openvino"
        assert np.abs(session.run({"image": _feed()})["saliency"] - run_tiny(_feed())).max() < 0.02


@pytest.mark.skipif("openvino" not in INSTALLED, reason="openvino is not installed")
def test_fp32_is_not_silently_bf16(tmp_path: Path) -> None:
    with open_session(write_tiny(tmp_path / "m.onnx"), "fp32", "openvino") as session:
        assert np.abs(session.run({"image": _feed()})["saliency"] - run_tiny(_feed())).max() < 1e-5


def test_memory_session_checks_what_its_function_returns() -> None:
    for returned in ({}, {"saliency": np.zeros((1, 1, 2, 2), np.float32)}, {"saliency": run_tiny(_feed()).astype(np.float64)}):
        with MemorySession(lambda _feeds, r=returned: r, [INPUT], [OUTPUT]) as session:
            with pytest.raises(InputError, match="outputs"):
                session.run({"image": _feed()})


def test_memory_session_passes_errors_on_and_waits() -> None:
    def fail(_feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise EdgesodError("broken on purpose")

    with MemorySession(fail, [INPUT], [OUTPUT], delay_s=0.01) as session:
        with pytest.raises(EdgesodError, match="on purpose"):
            session.run({"image": _feed()})


def _python(code: str, home: Path) -> None:
    env = os.environ | {"HOME": str(home)}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=env, timeout=60)


@pytest.mark.skipif("openvino" not in INSTALLED, reason="openvino is not installed")
def test_openvino_reports_nothing_home(tmp_path: Path) -> None:
    model = write_tiny(tmp_path / "m.onnx")
    home = tmp_path / "home"
    home.mkdir()
    code = f"""
import sys
from edgesod.runtime import open_session
open_session({str(model)!r}, "fp32", "openvino").close()
assert "openvino_telemetry" not in sys.modules
import openvino
assert openvino.convert_model
"""
    _python(code, home)
    assert list(home.iterdir()) == []


def test_importing_loads_no_backend(tmp_path: Path) -> None:
    heavy = {"openvino", "onnxruntime", "onnx", "torch", "av", "matplotlib"}
    _python(f"import sys, edgesod.runtime; assert not {heavy!r} & sys.modules.keys()", tmp_path)


@pytest.mark.parametrize("integers", [np.int8, np.uint8])
def test_signed_activations_are_onnx_runtimes(tmp_path: Path, integers: type[np.integer]) -> None:
    pytest.importorskip("openvino")
    path = write_tiny(tmp_path / "quantised.onnx")
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.04), "scale"))
    model.graph.initializer.append(numpy_helper.from_array(integers(0 if integers is np.int8 else 128), "zero"))
    model.graph.node[0].input[0] = "rounded"
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["integers"]))
    model.graph.node.insert(1, helper.make_node("DequantizeLinear", ["integers", "scale", "zero"], ["rounded"]))
    onnx.save(model, path)
    with open_session(path, "int8") as opened:
        assert opened.backend == ("onnxruntime" if integers is np.int8 else "openvino")
        np.testing.assert_allclose(opened.run({"image": _feed()})["saliency"], run_tiny(_feed()), atol=0.05)
    if integers is np.int8:
        with pytest.raises(BackendError, match="signed 8-bit activations") as caught:
            open_session(path, "int8", "openvino")
        assert "onnxruntime" in caught.value.hint
