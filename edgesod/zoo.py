"""The models there are: those this package ships, and the authors' own weights, which it can fetch.

Of the authors' weights only those are listed whose address and SHA-256 stand somewhere public. For BASNet, PoolNet and
BAPoolNet the authors link to file hosters and publish no hash: download them by hand and give them to ``--weights``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesod import assets
from edgesod.errors import InputError
from edgesod.files import read_json
from edgesod.recipe import Preprocessing

_TIMEOUT_S = 30


@dataclass(frozen=True)
class ShippedModel:
    """One model of the package.

    Attributes:
        name: What ``--model`` takes.
        onnx: FP32 ONNX file.
        weights: State dict, safetensors; in half precision where maps stay what they are.
        card: The model card's numbers: data, training, scores, FP16's headroom, licence.
    """

    name: str
    onnx: Path
    weights: Path
    card: dict[str, Any]


@dataclass(frozen=True)
class OfficialWeights:
    """Weights as a network's authors trained them, as an ONNX file to download.

    Attributes:
        name: The network.
        url: Where the file is.
        sha256: What it must hash to.
        num_bytes: Its size.
        licence: SPDX.
        origin: Whose weights they are and who made the file.
        preprocessing: What they want to be fed.
    """

    name: str
    url: str
    sha256: str
    num_bytes: int
    licence: str
    origin: str
    preprocessing: Preprocessing


_REMBG = "https://github.com/danielgatis/rembg/releases/download/v0.0.0"
_U2NET_ORIGIN = "xuebinqin/U-2-Net, as ONNX by danielgatis/rembg (release v0.0.0)"

# rembg publishes MD5 sums (60024c5c889badc19c04ad937298a77b, 8e83ca70e441ab06c318d82300c84806); the SHA-256 are those of the
# same files as several projects pin them and as the hosts' Git LFS records name them
OFFICIAL = (
    OfficialWeights(
        name="u2net",
        url=f"{_REMBG}/u2net.onnx",
        sha256="8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491",
        num_bytes=175_997_641,
        licence="Apache-2.0",
        origin=_U2NET_ORIGIN,
        preprocessing=Preprocessing(resize="linear"),
    ),
    OfficialWeights(
        name="u2netp",
        url=f"{_REMBG}/u2netp.onnx",
        sha256="309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
        num_bytes=4_574_861,
        licence="Apache-2.0",
        origin=_U2NET_ORIGIN,
        preprocessing=Preprocessing(resize="linear"),
    ),
)


def names() -> list[str]:
    """Return the names of the shipped models, sorted."""
    return sorted(path.parent.name for path in assets.models().glob("[!.]*/card.json"))


def shipped(name: str) -> ShippedModel:
    """Return a shipped model.

    Raises:
        InputError: No model of that name is shipped.
    """
    folder = assets.models() / name
    if not (folder / "card.json").is_file():
        raise InputError(
            f"no model {name!r} is shipped with this package",
            hint=f"shipped: {', '.join(names())}; or bring your own with --weights FILE or --onnx FILE",
        )
    return ShippedModel(name, folder / f"{name}.onnx", folder / f"{name}.safetensors", read_json(folder / "card.json"))


def official(name: str) -> OfficialWeights:
    """Return what is known of a network's official weights.

    Raises:
        InputError: They are not among those that can be fetched.
    """
    for weights in OFFICIAL:
        if weights.name == name:
            return weights
    raise InputError(
        f"no official weights of {name!r} can be fetched",
        hint=f"there are {', '.join(w.name for w in OFFICIAL)}; download others by hand: --model {name} --weights FILE",
    )


def cached(weights: OfficialWeights) -> Path:
    """Return where a download lies or will lie."""
    return assets.cache() / "weights" / f"{weights.name}-{weights.sha256[:12]}.onnx"


def fetch(weights: OfficialWeights, on_progress: Callable[[int, int | None], None] = lambda _done, _total: None) -> Path:
    """Return the file of official weights, downloaded and checked where it is not in the cache yet.

    Args:
        weights: What to fetch.
        on_progress: Told ``(done, total)`` in bytes.

    Raises:
        InputError: It cannot be downloaded, or is not what it should be; nothing is left in the cache then.
    """
    # imported here: they cost a third of a second that no other command has a use for
    import pooch  # type: ignore[import-untyped]
    import requests

    target = cached(weights)
    pooch.get_logger().setLevel(logging.WARNING)  # it announces downloads on stderr, where a progress bar is
    by_hand = f"fetch {weights.url} by other means (sha256 {weights.sha256}) and put it at {target}"
    try:
        found = pooch.retrieve(
            weights.url,
            f"sha256:{weights.sha256}",
            target.name,
            target.parent,
            downloader=pooch.HTTPDownloader(_Bar(on_progress), timeout=_TIMEOUT_S),
        )
    except requests.RequestException as error:
        raise InputError(
            f"the official weights of {weights.name} are not in the cache and cannot be downloaded: {_reason(error)}",
            hint=f"connect to the network and try again; or {by_hand}",
        ) from error
    except ValueError as error:
        raise InputError(
            f"what came from {weights.url} is not the file expected: its SHA-256 differs", hint=f"try again; or {by_hand}"
        ) from error
    except OSError as error:
        raise InputError(
            f"the cache {target.parent} cannot be written: {error.strerror or error}",
            hint="EDGESOD_CACHE=FOLDER names another place",
        ) from error
    return Path(found)


class _Bar:
    """What pooch expects of a progress bar."""

    total = 0

    def __init__(self, on_progress: Callable[[int, int | None], None]) -> None:
        self._on_progress = on_progress
        self._done = 0

    def update(self, more: int) -> None:
        self._done += more
        self._on_progress(self._done, self.total or None)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass


def _reason(error: Exception) -> str:
    """Return the innermost reason of an error that wraps others, in a line."""
    while (
        inner := next((a for a in (getattr(error, "reason", None), *error.args) if isinstance(a, Exception)), None)
    ) is not None:
        error = inner
    return str(error).splitlines()[0] if str(error) else type(error).__name__
