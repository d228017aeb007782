import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lit_gans.adversarial import GAN
from lit_gans.base.random import Draws
from lit_gans.benchmark import benchmark, main
from lit_gans.data import Digits
from lit_gans.papers.dcgan import DCGAN
from lit_gans.training.benchmark import Bare, BareLoop, Benchmark, Framework, Loop, _parse, append, table
from tests.gpu_smoke import RUNS, described

from .callbacks.common import fit, tiny_gan, tiny_trainer

CONFIG = """
model:
  class_path: lit_gans.papers.VanillaGAN
  init_args: {resolution: 8, hidden: 16, units: 8, pieces: 2, z_dim: 4}
data:
  class_path: lit_gans.data.Digits
  init_args: {batch_size: 16, resolution: 8}
trainer: {accelerator: cpu, devices: 1}
report: {every_kimg: 0.032}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    return path


def example(**changes: object) -> Benchmark:
    ours = Loop(batch_ms=12.0, data_ms=1.0, step_ms=10.0, callbacks_ms=1.0, peak_memory_mib=300.0)
    bare = Loop(batch_ms=10.0, data_ms=1.0, step_ms=9.0, callbacks_ms=0.0, peak_memory_mib=250.0)
    told = {"config": "a.yaml", "commit": "abc", "hardware": "CPU", "threads": 1, "torch": "2", "precision": "32-true"}
    return Benchmark(**told, batch_size=60, batches=5, repeats=3, framework=ours, bare=bare)


# ---- both loops ------------------------------------------------------------------------------------------------------


def test_both_loops_are_timed_in_parts(config: Path) -> None:
    result = benchmark(["--config", str(config)], batches=4, repeats=2, warmup=2)
    for loop in (result.framework, result.bare):
        assert loop.batch_ms > 0 and loop.data_ms > 0 and loop.step_ms > 0 and loop.peak_memory_mib > 50
    assert result.framework.callbacks_ms > 0 and result.bare.callbacks_ms == 0
    assert (result.config, result.batch_size, result.precision) == (str(config), 16, "32-true")


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_every_paper_is_timed(name: str) -> None:
    """The bare loop gives a step all that the framework's gives it, such as random numbers for augmentation."""
    argv = [*described(RUNS[name]), "--trainer.accelerator=cpu", "--trainer.devices=1"]
    result = benchmark(argv, batches=1, repeats=1, warmup=1)
    assert result.framework.step_ms > 0 and result.bare.step_ms > 0


def test_callbacks_with_a_cadence_of_their_own_are_left_out(config: Path, tmp_path: Path) -> None:
    framework = Framework(_parse(["--config", str(config)], str(tmp_path / "run")))
    names = [type(c).__name__ for c in framework.cli.trainer.callbacks]
    assert {"EMA", "Report", "Throughput", "Health"} <= set(names)
    assert not {"Evaluate", "ImageGrid", "Checkpoint", "ModelCheckpoint"} & set(names)
    framework.time(4, 2)
    assert framework.cli.model.batches_seen == 6
    framework.time(4, 2)  # a second turn goes on where the first stopped
    assert framework.cli.model.batches_seen == 12
    written = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert '"loss_d"' in written and "diversity" not in written


@pytest.mark.parametrize("name", ["stylegan2_ada", "r3gan"])
def test_both_loops_augment_as_often(tmp_path: Path, name: str) -> None:
    """Where a callback adapts the probability, and where the game follows a schedule."""
    argv = [*described(RUNS[name]), "--trainer.accelerator=cpu", "--trainer.devices=1"]
    framework = Framework(_parse(argv, str(tmp_path / "run")))
    framework.time(2, 1)
    gan = framework.cli.model
    if name == "stylegan2_ada":
        gan.augment.p.fill_(0.25)
    bare = BareLoop(_parse(argv, str(tmp_path / "bare")))
    bare.follow(gan, batches=3)
    assert bare.gan.augment.p == gan.augment.p > 0
    bare.time(2, 1)
    assert bare.gan.augment.p == gan.augment.p and bare.gan.images_seen == gan.images_seen


def fixed_latents(self: GAN, n: int, purpose: str) -> Tensor:
    return torch.linspace(-1, 1, n * self.z_dim).view(n, self.z_dim)


def test_the_bare_loop_takes_the_steps_of_the_framework(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"dropout": 0, "input_dropout": 0, "optimizer": "adam", "lr": 0.01, "total_kimg": 0.048}
    monkeypatch.setattr("lit_gans.papers.gan.VanillaGAN.latents", fixed_latents)
    torch.manual_seed(0)
    ours = tiny_gan(**options)
    torch.manual_seed(0)
    bare = tiny_gan(**{**options, "total_kimg": float("inf")})
    fit(tmp_path, ours)
    bare.__class__ = type("Plain", (Bare, type(bare)), {"latents": fixed_latents})
    bare.plain_optimizers = bare.configure_optimizers()
    bare.plain_draws = Draws("bare")
    data = Digits(batch_size=16, resolution=8)
    stream = iter(data.train_dataloader())
    for i in range(3):
        bare.training_step(data.on_after_batch_transfer(next(stream), 0), i)
    for (name, a), b in zip(ours.named_parameters(), bare.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


# ---- what is shown and kept ------------------------------------------------------------------------------------------


def test_figures() -> None:
    result = example()
    assert (result.img_per_s, result.overhead_ms, result.overhead_percent) == (5000, 2, 20)
    assert "overhead +2.000 ms per batch, +20.0 %" in table(result) and "s/kimg 0.200" in table(result)


def test_output_grows_by_a_line_and_a_row(tmp_path: Path) -> None:
    for _ in range(2):
        lines, rows = append(example(), tmp_path / "speed" / "cpu")
    first, second = (json.loads(line) for line in lines.read_text().splitlines())
    assert first == second and first["img_per_s"] == 5000 and first["framework"]["step_ms"] == 10
    header, rule, *body = rows.read_text().splitlines()
    assert header.startswith("| config | commit |") and len(body) == 2
    assert {header.count("|"), rule.count("|"), body[0].count("|")} == {15}


def test_the_command(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--batches", "3", "--repeats", "1", "--warmup", "1", "--output", str(tmp_path / "out")]
    assert main([*own, "--config", str(config), "--data.init_args.batch_size=8"]) == 0
    assert "3 batches of 8, median of 1 turns" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.jsonl").read_text())["batch_size"] == 8
    assert main(["--config", str(config), "--batches", "0"]) == 2
    assert capsys.readouterr().err == "lit-gans benchmark: batches is 0: give 1 or more\n"


# ---- against a script that knows nothing of the package --------------------------------------------------------------


class PlainScript:
    """DCGAN for 32 pixels as a plain script has it: torch modules, Adam, a DataLoader, losses printed now and then."""

    def __init__(self, images: Tensor, *, width: int, batch_size: int, reuse_fakes: bool) -> None:
        w = width

        def up(i: int, o: int) -> list[nn.Module]:
            return [nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(True)]

        def down(i: int, o: int) -> list[nn.Module]:
            return [nn.Conv2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.2, True)]

        first = [nn.ConvTranspose2d(100, 4 * w, 4, 1, 0, bias=False), nn.BatchNorm2d(4 * w), nn.ReLU(True)]
        self.g = nn.Sequential(*first, *up(4 * w, 2 * w), *up(2 * w, w), nn.ConvTranspose2d(w, 1, 4, 2, 1), nn.Tanh())
        self.d = nn.Sequential(nn.Conv2d(1, w, 4, 2, 1), nn.LeakyReLU(0.2, True), *down(w, 2 * w),
                               *down(2 * w, 4 * w), nn.Conv2d(4 * w, 1, 4, 1, 0), nn.Flatten(0))  # fmt: skip
        self.opt_g, self.opt_d = (torch.optim.Adam(n.parameters(), 2e-4, betas=(0.5, 0.999)) for n in (self.g, self.d))
        self.data = torch.utils.data.TensorDataset(images)
        self.batch_size, self.reuse_fakes, self.loss = batch_size, reuse_fakes, nn.BCEWithLogitsLoss()
        self.batches = self.endless()

    def endless(self) -> Iterator[Tensor]:
        while True:
            loader = torch.utils.data.DataLoader(self.data, self.batch_size, shuffle=True, drop_last=True)
            for (real,) in loader:
                yield real

    def train(self, batches: int) -> float:
        """Milliseconds per batch."""
        started = time.perf_counter()
        ones, zeros = torch.ones(self.batch_size), torch.zeros(self.batch_size)
        for i in range(batches):
            real = next(self.batches)
            self.opt_d.zero_grad()
            fake = self.g(torch.randn(len(real), 100, 1, 1))
            loss_d = self.loss(self.d(real), ones) + self.loss(self.d(fake.detach()), zeros)
            loss_d.backward()
            self.opt_d.step()
            self.opt_g.zero_grad()
            if not self.reuse_fakes:
                fake = self.g(torch.randn(len(real), 100, 1, 1))
            loss_g = self.loss(self.d(fake), ones)
            loss_g.backward()
            self.opt_g.step()
            if i % 50 == 0:
                print(f"loss_d {loss_d.item():.3f} loss_g {loss_g.item():.3f}")
        return 1000 * (time.perf_counter() - started) / batches


class Ours:
    """The framework's DCGAN of the same size, with the callbacks of every run."""

    def __init__(self, folder: Path, *, width: int, batch_size: int) -> None:
        from types import SimpleNamespace

        from lit_gans.callbacks import EMA, Health, Progress, Report, Throughput

        gan = DCGAN(resolution=32, channels=1, width=width, kernel_size=4)
        callbacks = [EMA(), Report(), Throughput(), Health(), Progress()]
        trainer = tiny_trainer(folder, *callbacks, enable_progress_bar=True)
        data = Digits(batch_size=batch_size, resolution=32)
        self.framework = Framework(SimpleNamespace(trainer=trainer, model=gan, datamodule=data))  # type: ignore[arg-type]

    def train(self, batches: int) -> float:
        return self.framework.time(batches, 3).batch_ms


@pytest.mark.slow
def test_no_slower_than_a_plain_script(tmp_path: Path) -> None:
    size = {"width": 32, "batch_size": 64}
    data = Digits(batch_size=64, resolution=32)
    pixels = data.dataset().images(torch.arange(len(data.dataset()))).float() / 127.5 - 1
    loops = [Ours(tmp_path, **size), PlainScript(pixels, **size, reuse_fakes=False),
             PlainScript(pixels, **size, reuse_fakes=True)]  # fmt: skip
    for loop in loops:
        loop.train(5)
    turns = [[loop.train(30) for loop in loops] for _ in range(7)]
    ours, script, thrifty = (statistics.median(times) for times in zip(*turns, strict=True))
    print(f"ms per batch: framework {ours:.1f}, plain script {script:.1f}, with the fakes of the D step {thrifty:.1f}")
    assert ours < 1.05 * min(script, thrifty)
