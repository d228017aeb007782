"""Every paper on the device that is here, through the verbs and with fit's own callbacks: `make gpu`.

Each trains some batches, is continued, evaluated and drawn from, in single and half precision, compiled and not, with
the Triton kernels and without. `--small` does it on a CPU in a few batches, so that the script itself is known to work:

    python -m tests.gpu_smoke                       all on the accelerator; a table, and exit status 1 where one failed
    python -m tests.gpu_smoke --only stylegan2      one of them
    python -m tests.gpu_smoke --small               in small, without compiling
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lit_gans.adversarial.capabilities import Samples, Translates, can
from lit_gans.evaluate import evaluate
from lit_gans.runs.load import load_run
from lit_gans.sample import sample
from lit_gans.training import cli as fit

BATCH = 8


@dataclass(frozen=True)
class Run:
    """A paper's class, what it is built from, its data, and options of callbacks."""

    model: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    data: str = "Digits"
    data_arguments: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


GREY = {"resolution": 16, "channels": 1, "z_dim": 16}
STYLES = {**GREY, "w_dim": 16, "num_layers": 2, "channel_base": 128, "channel_max": 16}
STYLES3 = {**GREY, "w_dim": 16, "num_layers": 4, "channel_base": 128, "channel_max": 16}
GROWTH = {"fade_in.start_px": 4, "fade_in.stabilise_kimg": 0.1, "fade_in.fade_kimg": 0.1}  # to the last stage in time
NO_AVERAGE = {"ema.half_life_kimg": "null"}
NO_LATENTS = {**NO_AVERAGE, "health.diversity_every_kimg": 0}
PAIRS = {"resolution": 64, "images": 32, "test_images": 8}
CAPTIONS = {"resolution": 64, "images": 64, "test_images": 16}
WORDS = {"encoder": "words", "encoder_rnn": "bag", "sentence_dim": 16, "word_dim": 16, "resolution": 64}
TEXT = {**WORDS, "z_dim": 8, "condition_dim": 8, "width": 8, "discriminator_width": 4}
RUNS = {
    "gan": Run("VanillaGAN", {**GREY, "hidden": 32, "units": 16, "pieces": 2}),
    "dcgan": Run("DCGAN", {**GREY, "width": 16}),
    "cgan": Run("CGAN", {**GREY, "width": 16, "num_classes": 10}),
    "age_cgan": Run(
        "AgeCGAN",
        {**GREY, "width": 16, "num_classes": 10, "encoder_width": 8, "encoder_hidden": 32, "encoder_share": 0.5},
    ),
    "wgan": Run("WGAN", {**GREY, "width": 16}),
    "wgan_gp": Run("WGANGP", {**GREY, "width": 16}),
    "msg_gan": Run("MSGGAN", {**GREY, "width": 16}),
    "pggan": Run("PGGAN", {**GREY, "channel_base": 128, "channel_max": 16}, options=GROWTH),
    "stylegan1": Run("StyleGAN1", STYLES, options=GROWTH),
    "stylegan2": Run("StyleGAN2", {**STYLES, "num_half_res": 1, "conv_clamp": 256}),
    "stylegan2_ada": Run(
        "StyleGAN2",
        {**STYLES, "augment": "lit_gans.augment.AdaptiveAugment", "augment.xflip": 1, "augment.rotate": 1,
         "augment.brightness": 1},
        options={"adaptive_augmentation.interval": 4},
    ),
    "stylegan3": Run("StyleGAN3", {**STYLES3, "num_half_res": 2}),
    "stylegan3_r": Run("StyleGAN3", {**STYLES3, "configuration": "R", "blur_sigma": 2, "blur_kimg": 0.1}),
    "stylegan_xl": Run(
        "StyleGANXL",
        {**STYLES3, "num_classes": 10, "embedding": [10, 8], "features": ["test_resnet"], "head_width": 8,
         "features_weights": ["random"], "features_px": [64], "num_half_res": 2},
    ),
    "stylegan_t": Run(
        "StyleGANT",
        {**WORDS, "z_dim": 8, "channel_base": 512, "channel_max": 16, "num_res_blocks": 1, "gn_groups": 4,
         "features": "test_resnet", "features_weights": "random", "features_px": 64, "num_half_res": 2},
        "ShapeCaptions", CAPTIONS,
    ),
    "fastgan": Run(
        "FastGAN", {**GREY, "resolution": 32, "width": 8, "discriminator_width": 8, "reconstruction": "l1"},
        data_arguments={"resolution": 32},
    ),
    "projected_gan": Run(
        "ProjectedGAN",
        {**GREY, "resolution": 32, "width": 8, "features": "torchvision:squeezenet1_1", "features_weights": "random",
         "features_px": 64, "head_width": 8},
        data_arguments={"resolution": 32},
    ),
    "biggan": Run(
        "BigGAN",
        {**GREY, "resolution": 32, "width": 8, "num_classes": 10, "attention": [16], "d_steps": 2, "ortho_g": 1e-4,
         "standing_passes": 2},
        data_arguments={"resolution": 32},
    ),
    "biggan_deep": Run(
        "BigGANDeep",
        {**GREY, "resolution": 32, "width": 8, "num_classes": 10, "attention": [16], "standing_passes": 2},
        data_arguments={"resolution": 32},
    ),
    "r3gan": Run(
        "R3GAN",
        {**GREY, "widths": [16, 16, 16], "cardinalities": [2, 2, 2], "num_blocks": [1, 1, 1], "num_half_res": 2,
         "num_classes": 10, "augment": "lit_gans.augment.AdaptiveAugment", "augment.xflip": 1, "augment.cutout": 1},
    ),
    "pix2pix": Run("Pix2Pix", {"width": 8, "levels": 5, "discriminator_width": 8}, "ShapePairs", PAIRS, NO_LATENTS),
    "cyclegan": Run("CycleGAN", {"width": 8, "blocks": 1, "discriminator_width": 8}, "ShapeDomains", PAIRS, NO_LATENTS),
    "pix2pixhd": Run(
        "Pix2PixHD",
        {"num_labels": 11, "width": 8, "downsamplings": 2, "blocks": 1, "discriminator_width": 8, "scales": 2,
         "perceptual_weight": 0},
        "ShapePairs", {**PAIRS, "inputs": "labels"}, NO_LATENTS,
    ),
    "joint_embedding": Run("JointEmbedding", {**WORDS, "width": 8}, "ShapeCaptions", CAPTIONS, NO_LATENTS),
    "stackgan": Run("StackGAN", {**TEXT, "residuals": 1, "stage1_kimg": 0.2}, "ShapeCaptions", CAPTIONS, NO_AVERAGE),
    "stackgan2": Run(
        "StackGAN2", {**TEXT, "branches": 1, "residuals": 1}, "ShapeCaptions", {**CAPTIONS, "wrong": "image"}
    ),
    "damsm": Run(
        "DAMSM",
        {"sentence_dim": 16, "word_dim": 16, "image_encoder": "small", "image_width": 8, "image_px": 64},
        "ShapeCaptions", {**CAPTIONS, "encode": "words"}, NO_LATENTS,
    ),
    "attngan": Run(
        "AttnGAN", {**TEXT, "stages": 1, "blocks": 1, "damsm_weight": 0}, "ShapeCaptions",
        {**CAPTIONS, "encode": "words"}, {"health.diversity_every_kimg": 0},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Way:
    """How a run is computed."""

    precision: str = "32-true"
    compile: bool = False
    kernels: bool = False

    def __str__(self) -> str:
        return " ".join([self.precision, *["compiled"] * self.compile, *["kernels"] * self.kernels])


def ways(small: bool) -> list[Way]:
    """In small the plain one alone: a CPU has no kernels, and compiles for minutes."""
    half = Way("bf16-mixed")
    every = [Way(), half, Way(compile=True), Way("bf16-mixed", compile=True)]
    return [Way()] if small else [*every, Way(kernels=True), Way("bf16-mixed", kernels=True)]


def attempt(run: Run, way: Way, folder: Path, *, batches: int) -> str:
    """Trains, continues, evaluates and draws; what was measured. Raises whatever goes wrong."""
    os.environ["LIT_GANS_KERNELS"] = "1" if way.kernels else "0"
    where = ["--trainer.accelerator=auto", "--trainer.devices=1", f"--trainer.precision={way.precision}"]
    arguments = [*described(run), *where, "--logger=none", f"--model.init_args.compile={way.compile}"]
    started = time.perf_counter()
    train(arguments, folder, batches=batches)
    trained_s = time.perf_counter() - started
    train([*arguments, "--ckpt_path=last"], folder, batches=batches + batches // 2)
    model = load_run(folder)
    assert model.images_seen == (batches + batches // 2) * BATCH, f"{model.images_seen} images after resuming"
    assert all(bool(p.isfinite().all()) for p in model.parameters()), "weights are not finite"
    told = [f"{trained_s:.1f} s", f"{batches * BATCH / trained_s:.0f} img/s with start-up"]
    if can(model, Samples):
        told += figures(evaluate(folder, metrics=["swd"], num_images=64, num_real=64).values)
        sample(folder, output=folder / "grid.png", seeds="0-7", grid=True)
    elif can(model, Translates):
        # No published network is needed: any features that do not come out as NaN will do.
        told += figures(evaluate(folder, metrics=["precision"], extractor="digits", neighbours=3).values)
    if torch.cuda.is_available():
        told.append(f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")
        torch.cuda.reset_peak_memory_stats()
    return ", ".join(told)


def figures(values: Mapping[str, float]) -> list[str]:
    assert all(value == value for value in values.values()), f"NaN among {values}"
    return [f"{name} {value:.4g}" for name, value in list(values.items())[:1]]


def described(run: Run) -> list[str]:
    """The arguments of fit that stand for a run."""
    argv = [f"--model=lit_gans.papers.{run.model}", f"--data=lit_gans.data.{run.data}"]
    for key, value in run.arguments.items():
        first, dot, rest = key.partition(".")
        argv.append(f"--model.init_args.{f'{first}.init_args.{rest}' if dot else key}={value}")
    own = {"batch_size": BATCH, **({"resolution": 16} if run.data == "Digits" else {}), **run.data_arguments}
    argv += [f"--data.init_args.{key}={value}" for key, value in own.items()]
    return argv + [f"--{key}={value}" for key, value in run.options.items()]


def train(arguments: list[str], folder: Path, *, batches: int) -> None:
    argv = [*arguments, f"--model.init_args.total_kimg={batches * BATCH / 1000}", f"--run_folder={folder}"]
    fit.train(fit.parse(argv), argv)


def results(names: list[str], *, small: bool, batches: int) -> Iterator[tuple[str, Way, str, bool]]:
    """(name, way, what was measured or went wrong, whether it worked) of one after another."""
    for name in names:
        for way in ways(small):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    yield name, way, attempt(RUNS[name], way, Path(folder) / "run", batches=batches), True
                except Exception as error:  # every other run shall still be tried
                    if os.environ.get("LIT_GANS_TRACEBACK") == "1":
                        traceback.print_exc()
                    yield name, way, f"{type(error).__name__}: {str(error).splitlines()[0]}", False
            torch.compiler.reset()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="NAME")
    parser.add_argument("--batches", type=int, help="of each first training (default: 60, in small 4)")
    parser.add_argument("--small", action="store_true", help="single precision alone, not compiled")
    arguments = parser.parse_args(argv)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device: the CPU"
    print(f"torch {torch.__version__}, {device}", flush=True)
    failed = 0
    batches = arguments.batches or (4 if arguments.small else 60)
    for name, way, told, worked in results(arguments.only, small=arguments.small, batches=batches):
        failed += not worked
        print(f"{'ok    ' if worked else 'FAILED'} {name:<16} {way!s:<28} {told}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
