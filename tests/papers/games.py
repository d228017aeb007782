"""Every game of every paper at a size that trains in seconds, each with data: for what must hold for all."""

from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl

from lit_gans.adversarial import Game
from lit_gans.data import Digits
from tests.cases import BATCH, CASES
from tests.papers import (
    captioned,
    test_attngan,
    test_cyclegan,
    test_pix2pix,
    test_pix2pixhd,
    test_stackgan2,
    test_stylegan_t,
)
from tests.papers.test_stackgan import tiny as stackgan

Build = Callable[..., Game]
Data = Callable[[Path], pl.LightningDataModule]  # whose files, if any, are written to a folder


def digits(build: Build) -> Data:
    return lambda _: Digits(batch_size=BATCH, resolution=build().resolution, seed=5)


def pixels(folder: Path) -> pl.LightningDataModule:
    return test_pix2pixhd.data(test_pix2pixhd.write_pictures(folder))


def words(_: Path) -> pl.LightningDataModule:
    return test_attngan.shapes()


GANS: dict[str, tuple[Build, Data]] = {name: (build, digits(build)) for name, build in CASES.items()}
OTHERS: dict[str, tuple[Build, Data]] = {
    **{f"pix2pix-{name}": (build, test_pix2pix.pairs) for name, build in test_pix2pix.CASES.items()},
    **{f"cyclegan-{name}": (build, test_cyclegan.domains) for name, build in test_cyclegan.CASES.items()},
    "pix2pixhd": (lambda **options: test_pix2pixhd.tiny(**test_pix2pixhd.PHASES, **options), pixels),
    "stackgan": (stackgan, lambda _: captioned.shapes(wrong="caption")),
    **{f"stackgan2-{name}": (build, lambda _, name=name: test_stackgan2.data(name))
       for name, build in test_stackgan2.CASES.items()},
    "stylegan-t-captions": (test_stylegan_t.CASES["captions"], lambda _: captioned.shapes()),
    "joint-embedding": (test_stackgan2.embedding, lambda _: captioned.shapes()),
    "attngan": (test_attngan.attngan, words),
    **{f"damsm-{rnn}": (lambda rnn=rnn, **options: test_attngan.damsm(encoder_rnn=rnn, **options), words)
       for rnn in ("lstm", "gru", "bag")},
}  # fmt: skip
