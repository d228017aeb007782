"""What `lit-gans benchmark` measures: the framework's whole loop against a bare one over the same networks.

The bare loop has the same recipe and data: the paper's own `training_step` with plain torch in place of Lightning, no
clock, no derived randomness, no reports, no callbacks. Both take turns.
"""

import contextlib
import io
import itertools
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch import Tensor

from lit_gans.augment import AdaptiveAugment
from lit_gans.base.random import Draws, drawing
from lit_gans.callbacks.clock import synchronize
from lit_gans.callbacks.throughput import peak_memory_mib
from lit_gans.data import TranslationSet
from lit_gans.runs.records import describe
from lit_gans.training.cli import FitCLI, _config_values, parse, set_arithmetic

EXCLUDED = ("Evaluate", "ImageGrid", "Checkpoint")
COLUMNS = ("config", "commit", "hardware", "threads", "torch", "precision", "batch", "img/s", "s/kimg", "MiB",
           "ms", "bare ms", "overhead ms", "overhead %")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Loop:
    """What a batch costs in one of the two loops: milliseconds, and the most memory in MiB.

    The parts are the time of the host: data (loader, copy to the device), step, callbacks; on a GPU the step's part is
    the time to launch it, and `batch_ms` the time in all.
    """

    batch_ms: float
    data_ms: float
    step_ms: float
    callbacks_ms: float
    peak_memory_mib: float


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Medians over the repeats of both loops, and what they were measured on."""

    config: str
    commit: str | None
    hardware: str
    threads: int
    torch: str
    precision: str
    batch_size: int
    batches: int
    repeats: int
    framework: Loop
    bare: Loop

    @property
    def img_per_s(self) -> float:
        return 1000 * self.batch_size / self.framework.batch_ms

    @property
    def overhead_ms(self) -> float:
        return self.framework.batch_ms - self.bare.batch_ms

    @property
    def overhead_percent(self) -> float:
        return 100 * self.overhead_ms / self.bare.batch_ms


def measure(argv: list[str], *, batches: int, repeats: int, warmup: int) -> Benchmark:
    """Times `batches` batches of each loop in turn, `repeats` times; `argv` is what `fit` would be given.

    The framework's loop has every callback of the config with its per-batch work and ticks, and no logger. Left out:
    evaluation, image grids, checkpoints and the diversity of `Health`, whose cost is a matter of their cadence.

    Raises:
        ValueError: a count is below 1, or several processes are asked for.
    """
    for name, value in (("batches", batches), ("repeats", repeats), ("warmup", warmup)):
        if value < 1:
            raise ValueError(f"{name} is {value}: give 1 or more")
    with tempfile.TemporaryDirectory() as folder:
        framework = Framework(_parse(argv, folder))
        ours, theirs, bare = list[Loop](), list[Loop](), None
        for _ in range(repeats):
            ours.append(framework.time(batches, warmup))
            bare = bare or BareLoop(_parse(argv, folder))  # after the first turn, whose memory it must not add to
            bare.follow(framework.cli.model, batches=warmup + batches)
            theirs.append(bare.time(batches, warmup))
    identity = _identity(argv, framework.cli)
    return Benchmark(**identity, batches=batches, repeats=repeats, framework=_median(ours), bare=_median(theirs))


def _parse(argv: list[str], folder: str) -> FitCLI:
    cli = parse(argv, run_folder=folder)
    set_arithmetic(cli)
    if cli.trainer.world_size > 1:
        raise ValueError(f"{cli.trainer.world_size} processes: a benchmark is of one; add --trainer.devices=1")
    return cli


def _median(loops: list[Loop]) -> Loop:
    """Each time's median; the memory of the first turn, which no other loop preceded."""
    times = {name: statistics.median(asdict(each)[name] for each in loops) for name in asdict(loops[0])}
    return replace(Loop(**times), peak_memory_mib=loops[0].peak_memory_mib)


def _identity(argv: list[str], cli: FitCLI) -> dict[str, Any]:
    told = describe(cli.trainer, argv)
    return {
        "config": " ".join(_config_values(argv)) or " ".join(argv),
        "commit": told["commit"],
        "hardware": told["hardware"],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": str(cli.trainer.precision),
        "batch_size": cli.datamodule.batch_size,
    }


# ---- the framework's loop --------------------------------------------------------------------------------------------


class Framework:
    """Lightning's loop with the callbacks that are due per step, a clock before and behind them."""

    def __init__(self, cli: FitCLI) -> None:
        self.cli = cli
        cli.trainer.callbacks = [c for c in cli.trainer.callbacks if type(c).__name__ not in EXCLUDED]
        for callback in cli.trainer.callbacks:
            if type(callback).__name__ == "Health":
                callback.diversity_every_kimg = 0.0

    def time(self, batches: int, warmup: int) -> Loop:
        trainer, gan, data = self.cli.trainer, self.cli.model, self.cli.datamodule
        device = trainer.strategy.root_device
        edges = _edges(warmup, batches, device)
        callbacks = trainer.callbacks
        trainer.callbacks = [edges[0], *callbacks, edges[1]]
        # The clock stops the loop, before a last batch with whatever a paper does in it once.
        gan.total_kimg = gan.kimg + 2 * (warmup + batches) * data.batch_size / 1000
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.filterwarnings("ignore", ".*treespec.*|.*does not have many workers.*")
            trainer.fit(gan, datamodule=data)
        trainer.callbacks = callbacks
        return edges[0].clock.loop(batches, device)


class _Clock:
    """Host times of the phases of a batch, counted once `warmup` batches are over."""

    def __init__(self, warmup: int, batches: int, device: torch.device) -> None:
        self.warmup, self.batches, self.device = warmup, batches, device
        self.done, self.spent = 0, {"data": 0.0, "step": 0.0, "callbacks": 0.0}
        self.now = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Time since the last lap goes to `phase`."""
        now = time.perf_counter()
        self.spent[phase] += now - self.now
        self.now = now

    def batch_done(self) -> None:
        self.done += 1
        if self.done == self.warmup:
            synchronize(self.device)
            _reset_peak_memory(self.device)
            self.spent = dict.fromkeys(self.spent, 0.0)
            self.now = self.started = time.perf_counter()
        elif self.done == self.warmup + self.batches:
            synchronize(self.device)
            self.total = time.perf_counter() - self.started

    def loop(self, batches: int, device: torch.device, *, without_mib: float = 0.0) -> Loop:
        parts = {f"{name}_ms": 1000 * value / batches for name, value in self.spent.items()}
        memory = peak_memory_mib(device) - without_mib
        return Loop(batch_ms=1000 * self.total / batches, **parts, peak_memory_mib=memory)


def _edges(warmup: int, batches: int, device: torch.device) -> tuple[Any, Any]:
    """Two callbacks with one clock, to stand before and behind all others."""
    clock = _Clock(warmup, batches, device)

    class First(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            clock.lap("data")

        def on_train_batch_end(self, *_: Any) -> None:
            clock.lap("step")

    class Last(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            clock.lap("callbacks")

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            clock.lap("callbacks")
            clock.batch_done()
            trainer.should_stop |= clock.done == warmup + batches

    First.clock = clock
    return First(), Last()


def _reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


# ---- the bare loop ---------------------------------------------------------------------------------------------------


class Bare:
    """Mixed in before a paper's class: what a recipe asks of `GAN`, in plain torch."""

    plain_optimizers: list[torch.optim.Optimizer]
    plain_draws: Draws
    fused = True

    def optimizers(self) -> Any:
        return self.plain_optimizers if len(self.plain_optimizers) > 1 else self.plain_optimizers[0]  # as Lightning

    @contextlib.contextmanager
    def updating(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        others = [p for o in self.plain_optimizers if o is not optimizer for g in o.param_groups for p in g["params"]]
        for parameter in others:
            parameter.requires_grad_(False)
        optimizer.zero_grad()
        with drawing(self.plain_draws):
            yield
        optimizer.step()
        for parameter in others:
            parameter.requires_grad_(True)

    def accumulate(self, loss: Tensor) -> None:
        (loss / self.micro_batches).backward()

    def latents(self, n: int, purpose: str) -> Tensor:
        return self.prior.draw(self.plain_draws, n, self.z_dim)

    def report(self, **values: Any) -> None:
        """Nothing."""

    def report_discriminator(self, *values: Any) -> None:
        """Nothing."""


class BareLoop:
    """A plain `for` over batches drawn by plain indexing (by the loader's workers where the config has some)."""

    def __init__(self, cli: FitCLI) -> None:
        self.device, self.precision = cli.trainer.strategy.root_device, cli.trainer.precision
        self.without_mib = _allocated_mib(self.device)
        self.gan, self.data = cli.model.to(self.device).train(), cli.datamodule
        self.gan.__class__ = type("Bare" + type(self.gan).__name__, (Bare, type(self.gan)), {})
        optimizers = self.gan.configure_optimizers()
        self.gan.plain_optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        self.gan.plain_draws = Draws("bare", device=self.device)
        self.data.prepare_data()
        self.batches = self._batches()

    def follow(self, gan: Any, *, batches: int) -> None:
        """Goes to where the framework's turn of so many batches began, and to the augmentation that it came to.

        So schedules are alike, and the probability that a callback adapts in the framework's loop alone.
        """
        self.gan.total_kimg = gan.total_kimg
        self.gan.images_seen = gan.images_seen - batches * self.data.batch_size
        ours, theirs = ([m for m in game.modules() if isinstance(m, AdaptiveAugment)] for game in (self.gan, gan))
        for mine, its in zip(ours, theirs, strict=True):
            mine.p.copy_(its.p)

    def time(self, batches: int, warmup: int) -> Loop:
        clock = _Clock(warmup, batches, self.device)
        for i, batch in enumerate(itertools.islice(self.batches, warmup + batches)):
            batch = self._to_device(batch)
            clock.lap("data")
            with self._autocast():
                self.gan.training_step(batch, i)
            self.gan.end_batch(batch)
            clock.lap("step")
            clock.batch_done()
        return clock.loop(batches, self.device, without_mib=self.without_mib)

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        if workers := self.data.workers(self.device):
            self.data.num_workers, self.data.trainer = workers, None
            yield from self.data.train_dataloader()
        images, size = self.data.dataset(self.data.train_split), self.data.batch_size
        # Translators see crops; all from one corner are as fast.
        crops = isinstance(images, TranslationSet)
        place = {"across": np.zeros(size), "down": np.zeros(size)}
        order = torch.tensor([], dtype=torch.int64)
        while True:
            while len(order) < size:
                order = torch.cat([order, torch.randperm(len(images))])
            chosen, order = order[:size], order[size:]
            batch = images.windows(chosen, **place) if crops else images.fetch(chosen)
            yield batch | self._wrong_partners(images, chosen)

    def _wrong_partners(self, images: Any, chosen: Tensor) -> dict[str, Tensor]:
        """Of data with captions, in their loader's form; which ones they are takes no time here."""
        wrong, others = getattr(self.data, "wrong", "none"), chosen.roll(1)
        if wrong == "none":
            return {}
        if wrong == "image":
            return {"wrong": images.images(others)}
        numbers = images.captions.first[others.numpy()]
        return {f"wrong_{name}": t for name, t in images.encoding.encode(numbers, 0, "wrong", numbers).items()}

    def _to_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        return self.data.on_after_batch_transfer(batch, 0)

    def _autocast(self) -> contextlib.AbstractContextManager:
        dtypes = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
        if self.precision not in dtypes:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=dtypes[self.precision])


def _allocated_mib(device: torch.device) -> float:
    """What is allocated already and belongs to the other loop; not told apart on a CPU."""
    return torch.cuda.memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0


# ---- what is shown and kept ------------------------------------------------------------------------------------------


def table(result: Benchmark) -> str:
    """The measurement for a reader."""
    ran = f"{result.batches} batches of {result.batch_size}, median of {result.repeats} turns, {result.precision}"
    lines = [f"{result.config}: {ran}", f"{result.hardware}, {result.threads} threads, torch {result.torch}", ""]
    lines += [f"{'':<12}{'ms/batch':>10}{'data':>9}{'step':>9}{'callbacks':>11}{'img/s':>10}{'MiB':>8}"]
    for name, loop in (("framework", result.framework), ("bare loop", result.bare)):
        speed = 1000 * result.batch_size / loop.batch_ms
        lines += [f"{name:<12}{loop.batch_ms:>10.3f}{loop.data_ms:>9.3f}{loop.step_ms:>9.3f}"
                  f"{loop.callbacks_ms:>11.3f}{speed:>10.1f}{loop.peak_memory_mib:>8.0f}"]  # fmt: skip
    lines += ["", f"overhead {result.overhead_ms:+.3f} ms per batch, {result.overhead_percent:+.1f} %"]
    left_out = f"left out: {', '.join(EXCLUDED)}, Health's diversity, the logger"
    return "\n".join([*lines, f"s/kimg {1000 / result.img_per_s:.3f}; {left_out}"])


def markdown_row(result: Benchmark) -> str:
    """One row under `COLUMNS`."""
    ours = result.framework
    cells = [result.config, result.commit, result.hardware, result.threads, result.torch, result.precision,
             result.batch_size, f"{result.img_per_s:.1f}", f"{1000 / result.img_per_s:.3f}",
             f"{ours.peak_memory_mib:.0f}", f"{ours.batch_ms:.2f}", f"{result.bare.batch_ms:.2f}",
             f"{result.overhead_ms:+.2f}", f"{result.overhead_percent:+.1f}"]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |\n"


def append(result: Benchmark, output: Path) -> list[Path]:
    """Adds a line to `<output>.jsonl` and a row to `<output>.md`; both files."""
    output.parent.mkdir(parents=True, exist_ok=True)
    lines, rows = output.with_suffix(".jsonl"), output.with_suffix(".md")
    extra = {name: getattr(result, name) for name in ("img_per_s", "overhead_ms", "overhead_percent")}
    with open(lines, "a", encoding="utf-8") as f:
        f.write(json.dumps({**asdict(result), **extra}) + "\n")
    header = "" if rows.exists() else f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
    with open(rows, "a", encoding="utf-8") as f:
        f.write(header + markdown_row(result))
    return [lines, rows]
