"""Official weights come whole and checked from a server, or not at all; what is fetched runs like any other ONNX."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from edgesod import Runtime, zoo
from edgesod.cli import models
from edgesod.cli._source import recipe_and_onnx
from edgesod.errors import InputError
from edgesod.processing.preprocess import preprocess
from edgesod.recipe import Preprocessing
from edgesod.runtime import open_session
from tests.helpers.engines import SIZE_HW, run_tiny, write_tiny


@dataclass
class Server:
    """Serves ``content`` whatever is asked for, ``sent`` bytes of it where that is fewer."""

    content: bytes
    status: int = 200
    sent: int | None = None
    url: str = ""
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    serving = Server(write_tiny(tmp_path / "tiny.onnx", outputs=3).read_bytes())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            serving.asked.append(self.path)
            self.send_response(serving.status)
            self.send_header("Content-Length", str(len(serving.content)))
            self.end_headers()
            self.wfile.write(serving.content[: serving.sent])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        serving.url = f"http://127.0.0.1:{http.server_port}/tiny.onnx"
        yield serving
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESOD_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


def _weights(server: Server) -> zoo.OfficialWeights:
    sha256 = hashlib.sha256(server.content).hexdigest()
    fed = Preprocessing(resize="linear", colour="BGR")
    return zoo.OfficialWeights("tiny", server.url, sha256, len(server.content), "Apache-2.0", "nobody's", fed)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_weights_are_downloaded_once(server: Server, cache: Path) -> None:
    weights, steps = _weights(server), []
    path = zoo.fetch(weights, lambda done, total: steps.append((done, total)))
    assert path.read_bytes() == server.content
    assert path == zoo.cached(weights)
    assert path.is_relative_to(cache)
    assert steps[-1] == (len(server.content), len(server.content))
    assert zoo.fetch(weights) == path
    assert server.asked == ["/tiny.onnx"]


def test_a_damaged_cache_is_downloaded_again(server: Server) -> None:
    path = zoo.fetch(_weights(server))
    path.write_bytes(b"damaged")
    assert zoo.fetch(_weights(server)).read_bytes() == server.content


def test_another_file_than_expected_is_refused(server: Server, cache: Path) -> None:
    weights = _weights(server)
    server.content = server.content[:-1] + b"?"
    with pytest.raises(InputError, match="SHA-256 differs") as caught:
        zoo.fetch(weights)
    assert weights.sha256 in caught.value.hint
    assert _files(cache) == []


def test_a_download_that_was_cut_off_is_refused(server: Server, cache: Path) -> None:
    server.sent = len(server.content) // 2
    with pytest.raises(InputError, match=r"cannot be downloaded|SHA-256 differs"):
        zoo.fetch(_weights(server))
    assert _files(cache) == []


def test_a_server_that_refuses_is_named(server: Server, cache: Path) -> None:
    server.status = 404
    with pytest.raises(InputError, match="404"):
        zoo.fetch(_weights(server))
    assert _files(cache) == []


def test_without_a_network_the_message_says_what_to_do(server: Server, cache: Path) -> None:
    weights = zoo.OfficialWeights(**{**vars(_weights(server)), "url": "http://127.0.0.1:9/tiny.onnx"})  # nobody listens there
    with pytest.raises(InputError, match="not in the cache and cannot be downloaded") as caught:
        zoo.fetch(weights)
    assert all(text in caught.value.hint for text in (weights.url, weights.sha256, str(zoo.cached(weights))))
    assert _files(cache) == []


def test_fetched_weights_run_on_what_they_want_to_be_fed(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = _weights(server)
    monkeypatch.setattr(zoo, "OFFICIAL", (weights,))
    models.command(fetch="tiny", as_json=True)
    path = Path(json.loads(capsys.readouterr().out)["onnx"])
    with recipe_and_onnx(model=None, precision="fp32", onnx=path) as (recipe, onnx):
        assert (recipe.model, recipe.size_hw, recipe.preprocessing) == ("tiny", SIZE_HW, weights.preprocessing)
        cat = np.ascontiguousarray(data.cat()[:, :, ::-1])
        with Runtime.from_session(open_session(onnx, "fp32", "onnxruntime"), recipe) as runtime:
            found = runtime(cat).map_hw
    resized = cv2.resize(cat, SIZE_HW[::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
    fed = ((resized - np.float32(recipe.preprocessing.mean)) / np.float32(recipe.preprocessing.std)).transpose(2, 0, 1)[None]
    np.testing.assert_allclose(preprocess(cat, recipe), fed, atol=1e-5)
    np.testing.assert_allclose(found, run_tiny(fed)[0, 0], atol=1e-4)


def test_models_lists_official_weights_beside_the_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    models.command(as_json=True)
    listed = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in listed["models"]] == zoo.names()
    assert {entry["name"] for entry in listed["official"]} == {"u2net", "u2netp"}
    for entry in listed["official"]:
        assert len(entry["sha256"]) == 64
        assert entry["url"].startswith("https://")
        assert entry["licence"] == "Apache-2.0"
        assert entry["is_cached"] is False
    models.command()
    assert "u2netp" in capsys.readouterr().out
    with pytest.raises(InputError, match="no official weights of 'basnet'"):
        models.command(fetch="basnet")


def test_a_model_that_was_not_scored_on_sod_is_listed_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = zoo.shipped("u2netp")
    scores = {"hold-out": next(iter(model.card["scores"].values()))}
    monkeypatch.setattr(zoo, "shipped", lambda _: dataclasses.replace(model, card=model.card | {"scores": scores}))
    models.command()
    rows = [line for line in capsys.readouterr().out.splitlines() if "1131181" in line]
    assert [row.count("–") for row in rows] == [2] * len(zoo.names())
