"""What a board says about itself, from trees made like those of Jetson Linux."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesod.bench.board import Clock, read_board

RELEASE = "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n"
GPU = "sys/class/devfreq/17000000.gpu"
CPU = "sys/devices/system/cpu/cpu0/cpufreq"


def make_tree(root: Path, **files: str) -> Path:
    for path, content in ({"etc/nv_tegra_release": RELEASE} | files).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content, encoding="utf-8")
    return root


def clocks(*, gpu_lowest: int) -> dict[str, str]:
    gpu = {f"{GPU}/cur_freq": "918000000", f"{GPU}/min_freq": str(gpu_lowest), f"{GPU}/max_freq": "918000000"}
    cpu = {f"{CPU}/scaling_{which}_freq": "1728000\n" for which in ("cur", "min", "max")}
    return gpu | cpu | {f"{CPU}/scaling_governor": "schedutil\n"}


def test_a_jetson_says_what_it_is(tmp_path: Path) -> None:
    nvpmodel = "#!/bin/sh\n[ \"$1\" = -q ] && printf 'NV Power Mode: MAXN_SUPER\\n2\\n'\n"
    model = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0"
    status = (
        "Package: nvidia-jetpack-runtime\nStatus: install ok installed\nVersion: 9\n\n"
        "Package: nvidia-jetpack\nStatus: install ok installed\nVersion: 6.2+b77\nDescription: all\n of it\n\n"
    )
    files = {"usr/sbin/nvpmodel": nvpmodel, "proc/device-tree/model": model, "var/lib/dpkg/status": status}
    make_tree(tmp_path, **files, **clocks(gpu_lowest=306000000))
    (tmp_path / "usr/sbin/nvpmodel").chmod(0o755)
    board = read_board(tmp_path)
    assert board.is_jetson
    assert (board.model, board.l4t, board.jetpack, board.power_mode) == (model[:-1], "36.4.3", "6.2+b77", "MAXN_SUPER")
    assert board.governor == "schedutil"
    assert board.clocks == {"cpu": Clock(1728, 1728, 1728), "gpu": Clock(918, 306, 918)}
    (warning,) = board.warnings
    assert "GPU" in warning
    assert "CPU" not in warning
    assert "jetson_clocks" in warning


def test_fixed_clocks_are_nothing_to_warn_of(tmp_path: Path) -> None:
    board = read_board(make_tree(tmp_path, **clocks(gpu_lowest=918000000)))
    assert board.clocks["gpu"].is_fixed
    assert board.warnings == ()


@pytest.mark.parametrize(
    ("release", "revision", "jetpack"),
    [(36, "3.0", "6.0"), (36, "4.0", "6.1"), (36, "4.3", "6.2"), (38, "2.1", "7.0"), (39, "2.0", "7.2"), (99, "1.0", None)],
)
def test_without_its_package_jetpack_is_told_by_l4t(tmp_path: Path, release: int, revision: str, jetpack: str | None) -> None:
    make_tree(tmp_path, **{"etc/nv_tegra_release": f"# R{release} (release), REVISION: {revision}, GCID: 1"})
    assert read_board(tmp_path).jetpack == jetpack


def test_a_machine_that_says_nothing_is_no_jetson(tmp_path: Path) -> None:
    board = read_board(tmp_path)
    assert not board.is_jetson
    assert board.as_dict() == {"model": None, "l4t": None, "jetpack": None, "power_mode": None, "clocks": {}, "governor": None}
    assert board.warnings == ()


def test_a_power_mode_that_cannot_be_asked_is_none(tmp_path: Path) -> None:
    make_tree(tmp_path, **{"usr/sbin/nvpmodel": "not a program"})
    assert read_board(tmp_path).power_mode is None
