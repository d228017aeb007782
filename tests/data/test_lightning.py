"""The data modules inside Lightning: built by its CLI's parser, run by its Trainer on two processes."""

from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning import LightningModule, Trainer

from lit_gans.data import ImageData

from .test_base import Counting, Watcher


class Keeping(Watcher):
    """Writes down, at the end, what each process was shown."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_end(self) -> None:
        torch.save(torch.stack(self.seen), self.folder / f"{self.trainer.world_size}-{self.global_rank}.pt")


def run(module: LightningModule, folder: Path, devices: int) -> None:
    Trainer(
        default_root_dir=folder, max_steps=6, accelerator="cpu", devices=devices, logger=False,
        strategy="ddp_spawn" if devices > 1 else "auto",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(module, Counting(batch_size=6, resolution=2, mirror=True))  # fmt: skip


@pytest.mark.slow
def test_two_processes_see_the_batches_of_one(tmp_path: Path) -> None:
    for devices in (2, 1):
        run(Keeping(tmp_path), tmp_path, devices)
    one, first, second = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    assert one.shape[:2] == (6, 6) and first.shape[:2] == (6, 3)
    assert torch.equal(torch.cat([first, second], 1), one)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("Digits", {"holdout": True}),
        ("MNIST", {"root": "x", "download": True}),
        ("FashionMNIST", {}),
        ("KMNIST", {}),
        ("CIFAR10", {"root": "x"}),
        ("Images", {"path": "x", "labels": "folders", "resize": "fit", "crop_px": 108}),
        ("FFHQ", {"path": "x", "train_split": "all"}),
        ("Shapes", {"label": None, "rotate": True}),
    ],
)
def test_a_config_names_class_and_plain_values(name: str, extra: dict[str, object]) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageData, "data")
    values = {"batch_size": 8, "resolution": 32, "mirror": True, "num_workers": 1, "seed": 5, **extra}
    config = parser.parse_object({"data": {"class_path": f"lit_gans.data.{name}", "init_args": values}})
    data = parser.instantiate_classes(config).data
    assert type(data).__name__ == name and (data.batch_size, data.seed, data.mirror) == (8, 5, True)
    with pytest.raises(Exception, match="colour_of_the_sky"):
        parser.parse_object(
            {"data": {"class_path": f"lit_gans.data.{name}", "init_args": {**values, "colour_of_the_sky": 1}}}
        )
