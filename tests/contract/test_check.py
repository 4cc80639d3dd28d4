"""The fake TensorRT has what each version's record says, and nothing else; and what would differ is found."""

from __future__ import annotations

import inspect

import pytest

from .check import check
from .fake_tensorrt import BEHAVIOURS, make_fake
from .record import VERSIONS, load, signature_of

NEWEST = VERSIONS[-1]


def test_records_are_of_the_supported_versions() -> None:
    assert [".".join(v.split(".")[:2]) for v in VERSIONS] == ["8.5", "8.6", "10.3", "10.16", "11.4"]


@pytest.mark.parametrize("version", VERSIONS)
def test_fake_is_its_record(version: str) -> None:
    assert check(make_fake(load(version)), load(version)) == []


def test_a_deleted_method_an_invented_one_and_a_wrong_number_are_found() -> None:
    fake = make_fake(load(NEWEST))
    del fake.Builder.create_network
    fake.Builder.build_engine = lambda self, network, config: None
    fake.IExecutionContext.execute_async_v3 = lambda self, stream: True
    del fake.BuilderFlag.TF32
    fake.BuilderFlag.REFIT.value = 99
    fake.ITensor.dtype = fake.ITensor.dtype.setter(lambda self, value: None)
    del fake.IProgressMonitor
    assert check(fake, load(NEWEST)) == [
        "IProgressMonitor is missing",
        "Builder.build_engine() is no method there",
        "Builder.create_network() is missing",
        "BuilderFlag.REFIT = 99, really 4",
        "BuilderFlag.TF32 is missing",
        "IExecutionContext.execute_async_v3() takes ['stream'], really ['stream_handle']",
        "ITensor.dtype can be set here or there, not both",
    ]


def test_the_fake_of_one_version_does_not_pass_for_another() -> None:
    assert any("BuilderFlag.FP16" in sentence for sentence in check(make_fake(load("10.16.1.11")), load(NEWEST)))
    assert any("IProgressMonitor" in sentence for sentence in check(make_fake(load("10.3.0")), load("8.6.1")))


@pytest.mark.parametrize("name", sorted(BEHAVIOURS))
def test_no_behaviour_is_invented(name: str) -> None:
    entries = [load(version).classes[name] for version in VERSIONS if name in load(version).classes]
    assert entries, f"no version has {name}"
    for key, value in vars(BEHAVIOURS[name]).items():
        if key.startswith("_"):
            continue
        kinds = [entry["methods"] if inspect.isfunction(value) else entry["properties"] for entry in entries]
        assert any(key in kind for kind in kinds), f"no version has {name}.{key}"
        if inspect.isfunction(value):
            real = {p for kind in kinds for text in kind.get(key, ()) for p in signature_of(text).parameters}
            taken = set(inspect.signature(value).parameters) - {"self"}
            assert taken <= real, f"{name}.{key} takes what none has: {taken - real}"
