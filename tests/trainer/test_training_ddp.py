"""Several processes train as one does with the batch of all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from tests.helpers.shared_training import gradients_of_one_step
from trainer.training.checkpoint import checkpoints

ROOT = Path(__file__).parents[2]


def test_two_processes_have_the_gradients_of_one_with_the_doubled_batch(pairs: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.helpers.shared_training", pairs, str(tmp_path / "two")],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    alone = gradients_of_one_step(pairs, tmp_path / "one", 4)
    for run in (tmp_path / "two" / passes for passes in ("1", "2")):
        for rank in (0, 1):
            shared = load_file(run / f"gradients-{rank}.safetensors")
            assert shared.keys() == alone.keys()
            largest = max(value.abs().max() for value in alone.values())
            assert max((shared[name] - value).abs().max() for name, value in alone.items()) < 1e-5 * largest
        # one of the two wrote the run, once
        assert [path.name for path in checkpoints(run)] == ["checkpoint-000000004"]
        assert len((run / "log.jsonl").read_text().splitlines()) == 1
