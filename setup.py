"""Packaging metadata; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "edgesod/__init__.py").read_text(encoding="utf-8")).group(1)

BASE = [
    "av>=17",
    "matplotlib>=3.8",
    "numpy>=1.23.5",
    "onnx>=1.15",
    "onnxruntime>=1.17",
    "onnxsim>=0.4.36",
    "opencv-python>=4.8",
    "openvino>=2024.0; platform_machine in 'x86_64 AMD64 arm64 aarch64'",
    "platformdirs>=4",
    "pooch>=1.8",
    "pydantic>=2.6",
    "requests>=2.28",  # what pooch downloads with
    "rich>=13",
    "scikit-image>=0.22",  # its freely licensed photographs: the gate's default images and the demo's clip
    "tomli>=2; python_version < '3.11'",
    "typer>=0.12",
]
EXTRAS = {
    "train": ["lightning-fabric>=2.4", "safetensors>=0.4", "tensorboard>=2.15", "torch>=2.11"],
    "tensorrt": ["tensorrt>=8.5", "cuda-python>=12.8"],  # pycuda serves as well: it has no wheels and needs the CUDA toolkit
    "web": ["fastapi>=0.110", "uvicorn>=0.29"],
    "dev": [
        "fastapi>=0.110",  # the extra `web`
        "mypy>=1.10",
        "playwright>=1.40",  # drives Debian's Chromium, and downloads none of its own
        "prometheus_client>=0.17",  # its parser reads what the page writes
        "pytest>=8",
        "ruff>=0.9",
        "scikit-learn>=1.3",  # pysodmetrics needs it; pysodmetrics itself is installed by `make`, see there
        "uvicorn>=0.29",
    ],
}

setup(
    name="edgesod",
    version=VERSION,
    description="Salient-object detection from a training set to a robot: train, export, calibrate, build, run, prove.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=[*find_packages(include=["edgesod", "edgesod.*", "trainer", "trainer.*"]), "edgesod._recipes", "edgesod._calib"],
    package_dir={"edgesod._recipes": "engines/recipes", "edgesod._calib": "calib"},
    package_data={
        "edgesod": ["py.typed", "models/*/*"],
        "edgesod._recipes": ["*.toml"],
        "edgesod._calib": ["*.json"],
        "edgesod.bench": ["*.css"],
        "edgesod.web": ["static/*"],
        "trainer": ["recipes/*.toml", "kernels/*.c", "kernels/*.h"],
    },
    install_requires=BASE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["edgesod = edgesod.cli:main"]},
)
