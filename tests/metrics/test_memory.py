"""What an evaluation of published size holds in memory: measured in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")

PREFIX = """
import torch
torch.set_num_threads(1)
def status_mib(name: str) -> float:
    # Not getrusage: its peak is inherited from the process that started this one.
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
def peak_mib() -> float:
    return status_mib("VmHWM:")
def now_mib() -> float:
    return status_mib("VmRSS:")
"""

FEATURES = """
from lit_gans.metrics.features import FeatureSet, Moments
rows, width = 50_000, 2048
block = torch.rand(500, width)
metric, moments = FeatureSet(width, capacity=rows), Moments(width)
moments.update(block)
before = now_mib()
for start in range(0, rows, 500):
    metric.update(block, torch.arange(start, start + 500))
whole = metric.gathered()
assert whole.shape == (rows, width) and torch.equal(whole[-500:], block)
print(peak_mib() - before)
"""

OVERLAP = """
from lit_gans.metrics.manifold import manifold_overlap
generator = torch.Generator().manual_seed(0)
manifold_overlap(*torch.randn(2, 9, 4), k=3)
before = now_mib()
real, fake = (torch.randn(10_000, {width}, generator=generator) for _ in range(2))
found = manifold_overlap(real, fake, k=3)
assert 0 <= found.precision <= 1 and found.density >= 0
print(peak_mib() - before)
"""


def mib(code: str) -> float:
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PREFIX + code], capture_output=True, text=True, env=environment, cwd=root, timeout=500
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return float(done.stdout.split()[-1])


@pytest.mark.slow
def test_50000_features_are_held_once() -> None:
    once = 50_000 * 2048 * 4 / 2**20
    assert once < mib(FEATURES) < 1.15 * once


@pytest.mark.slow
def test_overlap_of_10000_with_10000_stays_below_two_gigabytes() -> None:
    assert mib(OVERLAP.format(width=2048)) < 2048


@pytest.mark.slow
def test_overlap_needs_no_more_for_many_than_for_a_tile() -> None:
    assert mib(OVERLAP.format(width=8)) < 763  # all distances at once, and nothing else
