"""The backend that is chosen, the reason given, and the refusals."""

from __future__ import annotations

import sys

import pytest

from edgesod.errors import BackendError, UsageError
from edgesod.runtime import available_backends, choose_backend, select, tensorrt_version

USABLE = {name for name, state in available_backends().items() if state.is_usable} - {"tensorrt"}


@pytest.fixture(autouse=True)
def _without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """What TensorRT changes is tested in test_tensorrt_refusals.py, on machines with and without."""
    monkeypatch.setattr(tensorrt_version, "_is_installed", lambda: False)
    monkeypatch.setattr(select, "driver_is_installed", lambda: False)


@pytest.fixture
def _without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "edgesod.runtime.openvino_session", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)


def test_states() -> None:
    states = available_backends()
    assert list(states) == ["tensorrt", "openvino", "onnxruntime"]
    assert states["onnxruntime"].is_usable
    for state in states.values():
        assert bool(state.remedy) != state.is_usable
        assert state.text


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_prefers_openvino_and_says_why(precision: str) -> None:
    name, reason = choose_backend(precision)
    assert name == ("openvino" if "openvino" in USABLE else "onnxruntime")
    assert reason.startswith(f"{name}: ")


def test_fp16_is_onnx_runtimes() -> None:
    assert choose_backend("fp16")[0] == "onnxruntime"
    with pytest.raises(BackendError, match="openvino cannot be used: it does not run fp16"):
        choose_backend("fp16", "openvino")


@pytest.mark.parametrize("name", sorted(USABLE))
def test_an_explicit_one_is_had(name: str) -> None:
    assert choose_backend("int8", name)[0] == name


@pytest.mark.usefixtures("_without_openvino")
def test_without_openvino() -> None:
    assert available_backends()["openvino"].text == "it is not installed"
    name, reason = choose_backend("int8")
    assert name == "onnxruntime"
    assert "openvino is not used: it is not installed" in reason
    with pytest.raises(BackendError, match="not installed") as caught:
        choose_backend("int8", "openvino")
    assert caught.value.hint == "pip install openvino"
    with pytest.raises(BackendError, match="nothing here runs bf16") as caught:
        choose_backend("bf16")
    assert "pip install openvino" in caught.value.hint


def test_a_broken_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError("libtbb.so.12: cannot open shared object file")

    monkeypatch.setattr(select, "_load", broken)
    assert "libtbb" in available_backends()["openvino"].text
    with pytest.raises(BackendError, match="libtbb") as caught:
        choose_backend("int8", "openvino")
    assert "pip install" in caught.value.hint
    with pytest.raises(BackendError, match="nothing here runs int8"):
        choose_backend("int8")


def test_bf16_needs_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="bf16"):
        choose_backend("bf16", "onnxruntime")
    if "openvino" not in USABLE:
        pytest.skip("openvino is not installed")
    from edgesod.runtime import openvino_session

    monkeypatch.setattr(openvino_session, "capabilities", lambda: ("FP32", "INT8"))
    with pytest.raises(BackendError, match="FP32, INT8"):
        choose_backend("bf16", "openvino")
    monkeypatch.setattr(openvino_session, "capabilities", lambda: ("FP32", "BF16"))
    assert choose_backend("bf16")[0] == "openvino"


def test_without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    for precision in ("fp32", "fp16", "int8"):
        with pytest.raises(BackendError, match="TensorRT is not installed, and there is no NVIDIA driver"):
            choose_backend(precision, "tensorrt")
        assert "tensorrt" not in choose_backend(precision)[1]  # without a GPU's driver it is nothing to remark on
    monkeypatch.setattr(select, "driver_is_installed", lambda: True)
    assert choose_backend("int8")[1].endswith("; tensorrt is not used: TensorRT is not installed")


def test_unknown() -> None:
    with pytest.raises(UsageError, match="coreml") as caught:
        choose_backend("fp32", "coreml")
    assert "openvino" in caught.value.hint
