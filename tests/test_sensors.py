"""Sensors, from trees made like those of the kernel on a Jetson and on a desktop, and from an NVML of our own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgesod import sensors
from edgesod.sensors import Sensors, read_sensors

INA = "sys/class/hwmon/hwmon4"
JETSON = {
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48281\n",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",
    "sys/class/thermal/thermal_zone10/type": "tj-thermal\n",
    "sys/class/thermal/thermal_zone10/temp": "49500\n",
    f"{INA}/name": "ina3221\n",
    f"{INA}/in1_label": "VDD_IN\n",
    f"{INA}/in1_input": "4952\n",
    f"{INA}/curr1_input": "1160\n",
    f"{INA}/in2_label": "VDD_CPU_GPU_CV\n",
    f"{INA}/in2_input": "4944\n",
    f"{INA}/curr2_input": "240\n",
    f"{INA}/in3_input": "5000\n",  # a channel without a name is not wired
    f"{INA}/curr3_input": "9000\n",
    f"{INA}/in4_label": "sum of shunt voltages\n",
    f"{INA}/in4_input": "9\n",
    f"{INA}/curr4_input": "1400\n",
}
DESKTOP = {
    "sys/class/hwmon/hwmon0/name": "coretemp\n",
    "sys/class/hwmon/hwmon0/temp1_label": "Package id 0\n",
    "sys/class/hwmon/hwmon0/temp1_input": "61000\n",
    "sys/class/hwmon/hwmon0/temp2_label": "Core 0\n",
    "sys/class/hwmon/hwmon0/temp2_input": "not a number\n",
    "sys/class/hwmon/hwmon1/name": "nvme\n",
    "sys/class/hwmon/hwmon1/temp1_input": "40000\n",
    "sys/class/hwmon/hwmon2/name": "nvme\n",
    "sys/class/hwmon/hwmon2/temp1_input": "41000\n",
    "sys/class/hwmon/hwmon3/name": "amdgpu\n",
    "sys/class/hwmon/hwmon3/power1_average": "35000000\n",
    "sys/class/powercap/intel-rapl:0/name": "package-0\n",
    "sys/class/powercap/intel-rapl:0/energy_uj": "262100000000\n",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850\n",
    "sys/class/powercap/intel-rapl:0:0/name": "core\n",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "1000000\n",
}


@pytest.fixture(autouse=True)
def _no_nvml_kept() -> Iterator[None]:
    sensors._nvml.cache_clear()
    yield
    sensors._nvml.cache_clear()


def make_tree(root: Path, files: dict[str, str]) -> Path:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content, encoding="utf-8")
    return root


def test_a_jetson(tmp_path: Path) -> None:
    found = read_sensors(make_tree(tmp_path, JETSON))
    assert found.temperatures_c == {"cpu": 48.281, "tj": 49.5}
    assert found.power_w == pytest.approx({"VDD_IN": 4.952 * 1.16, "VDD_CPU_GPU_CV": 4.944 * 0.24}, abs=1e-4)
    assert found.as_dict() == {"temperatures_c": found.temperatures_c, "power_w": found.power_w, "energy_j": {}}


def test_a_desktop(tmp_path: Path) -> None:
    found = read_sensors(make_tree(tmp_path, DESKTOP))
    assert found.temperatures_c == {"coretemp Package id 0": 61, "nvme": 40, "nvme 2": 41}
    assert found.power_w == {"amdgpu": 35}
    assert found.energy_j == {"package-0": 262100, "package-0 core": 1}


def test_a_counter_makes_a_power_also_where_it_begins_again(tmp_path: Path) -> None:
    first = replace(read_sensors(make_tree(tmp_path, DESKTOP)), read_at_s=100)
    change = {"sys/class/powercap/intel-rapl:0/energy_uj": "56671150", "sys/class/powercap/intel-rapl:0:0/energy_uj": "6000000"}
    second = replace(read_sensors(make_tree(tmp_path, change)), read_at_s=102)
    # 262143.32885 J is its range: 43.32885 J up to there, then 56.67115 J
    assert second.energy_since(first) == pytest.approx({"package-0": 100, "package-0 core": 5})
    assert second.power_since(first) == pytest.approx({"amdgpu": 35, "package-0": 50, "package-0 core": 2.5})
    assert second.power_since(second) == {"amdgpu": 35}
    assert second.energy_since(Sensors()) == {}


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    found = read_sensors(tmp_path)
    assert found.as_dict() == {"temperatures_c": {}, "power_w": {}, "energy_j": {}}


def test_files_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    make_tree(tmp_path, DESKTOP)
    zone = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    zone.unlink()
    zone.mkdir()  # reading it fails, as without rights
    assert read_sensors(tmp_path).energy_j == {"package-0 core": 1}


class _FakeNvml:
    NVML_TEMPERATURE_GPU = 0

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, k: int) -> int:  # noqa: N802
        return k

    def nvmlDeviceGetTemperature(self, handle: int, kind: int) -> int:  # noqa: N802
        return 55 + handle

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        if handle:
            raise RuntimeError("Not Supported")
        return 71500


def test_gpus_by_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", _FakeNvml())
    assert read_sensors(tmp_path).power_w == {}, "a tree that is not this machine has no GPU"
    found = read_sensors()
    assert (found.temperatures_c["GPU 0"], found.temperatures_c["GPU 1"]) == (55, 56)
    assert found.power_w["GPU 0"] == 71.5
    assert "GPU 1" not in found.power_w


def test_an_nvml_without_a_driver_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("Driver Not Loaded")

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=fail))
    assert not any(name.startswith("GPU") for name in read_sensors().power_w)
