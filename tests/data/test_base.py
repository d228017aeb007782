"""The data module: what it checks, what it hands to Lightning, and how a resumed run goes on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn

from lit_gans.data import Digits, ImageData, ImageSet, TensorSet
from lit_gans.data.sets import resize

from .common import Numbers


class Counting(ImageData):
    """Numbers as a data module."""

    length = 10

    def load(self, split: str) -> ImageSet:
        return Numbers(self.length)


class Watcher(LightningModule):
    """Keeps the clock and writes down what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_ = nn.Linear(1, 1)
        self.images_seen = 0
        self.seen: list[Tensor] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.seen.append(batch["image"].detach().clone())
        self.images_seen += len(batch["image"])
        return self.layer_(batch["image"].flatten()[:, None]).sum() * 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["images_seen"] = self.images_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.images_seen = checkpoint["images_seen"]


def train(folder: Path, steps: int, resume: Path | None = None, workers: int = 0) -> tuple[Watcher, Trainer]:
    trainer = Trainer(
        default_root_dir=folder, max_steps=steps, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    module = Watcher()
    data = Counting(batch_size=4, resolution=2, mirror=True, num_workers=workers)
    trainer.fit(module, data, ckpt_path=resume)
    return module, trainer


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_sees_what_an_unbroken_one_sees(tmp_path: Path, workers: int) -> None:
    whole, _ = train(tmp_path, 8)
    first, trainer = train(tmp_path, 5, workers=workers)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    second, _ = train(tmp_path, 8, tmp_path / "half.ckpt", workers)
    assert (len(first.seen), len(second.seen), second.images_seen) == (5, 3, 32)
    assert torch.equal(torch.cat(first.seen + second.seen), torch.cat(whole.seen))


def test_images_reach_the_step_as_floats_from_minus_1_to_1(tmp_path: Path) -> None:
    images = train(tmp_path, 4)[0].seen[0]
    assert images.dtype == torch.float32 and images.min() >= -1 and images.max() <= 1
    data = Counting(batch_size=1, resolution=2)
    ends = data.on_after_batch_transfer({"image": torch.tensor([0, 255], dtype=torch.uint8)}, 0)["image"]
    assert ends.tolist() == [-1.0, 1.0]
    assert data.on_after_batch_transfer({"image": ends}, 0)["image"] is ends


def test_without_a_trainer() -> None:
    data = Counting(batch_size=4, resolution=2)
    assert next(iter(data.train_dataloader()))["image"].shape == (4, 1, 1, 2)
    batches = list(data.batches("test", 4))
    assert [len(batch["label"]) for batch in batches] == [4, 4, 2]
    assert torch.cat([batch["image"] for batch in batches])[:, 0, 0, 0].tolist() == list(range(10))
    chosen = list(data.batches(indices=torch.tensor([7, 3]), batch_size=4))
    assert chosen[0]["image"][:, 0, 0, 0].tolist() == [7, 3]
    assert list(data.batches(indices=torch.empty(0, dtype=torch.int64))) == []


def test_a_batch_that_does_not_divide_is_refused_before_training() -> None:
    data = Counting(batch_size=5, resolution=2)
    data.trainer = SimpleNamespace(world_size=2, global_rank=1)
    for refused in (data.setup, data.train_dataloader):
        with pytest.raises(ValueError, match="batch_size 5 .* into 2 processes: use a multiple of 2, such as 6"):
            refused()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_memory_is_pinned_for_cuda_alone_and_workers_persist(device: str) -> None:
    data = Counting(batch_size=4, resolution=2, num_workers=1)
    data.trainer = SimpleNamespace(
        world_size=2,
        num_devices=2,
        global_rank=1,
        lightning_module=SimpleNamespace(images_seen=40),
        strategy=SimpleNamespace(root_device=torch.device(device)),
    )
    loader = data.train_dataloader()
    assert loader.pin_memory == (device == "cuda") and loader.persistent_workers
    assert loader.dataset.positions(0).tolist() == [42, 43]


def test_a_gpu_is_fed_by_processes_and_a_cpu_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_gans.data.base.suggested_max_num_workers", lambda devices: 24 // devices)
    cpu, cuda, data = torch.device("cpu"), torch.device("cuda"), Counting(batch_size=4, resolution=2)
    assert data.workers(cpu) == 0 and [data.workers(cuda, devices=n) for n in (1, 4, 24)] == [8, 6, 1]
    assert Digits(batch_size=4, resolution=8).workers(cuda) == 0, "these pictures lie in memory"
    given = Counting(batch_size=4, resolution=2, num_workers=3)
    assert given.workers(cpu) == given.workers(cuda) == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resolution", 0),
        ("resolution", 2.5),
        ("resolution", True),
        ("batch_size", 0),
        ("num_workers", -1),
        ("seed", -3),
    ],
)
def test_sizes_are_whole_numbers(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value!r}; it must be a whole number of"):
        Counting(**{"batch_size": 1, "resolution": 2, name: value})


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="Counting has no split 'valid'; it has train, test"):
        Counting(batch_size=1, resolution=2).dataset("valid")


def test_a_set_is_loaded_once_and_again_for_another_resolution() -> None:
    data = Digits(batch_size=4, resolution=8)
    first = data.dataset()
    assert data.dataset() is first
    data.resolution = 16
    assert data.dataset().fetch(torch.arange(2))["image"].shape == (2, 1, 16, 16)
    assert len(data._sets) == 1


def test_fingerprint_tells_content_split_and_resolution_apart() -> None:
    data, other = (Counting(batch_size=b, resolution=2) for b in (1, 8))
    assert len(data.fingerprint()) == 16 and int(data.fingerprint(), 16) >= 0
    assert data.fingerprint() == other.fingerprint() != data.fingerprint("test")
    other.resolution = 4
    assert data.fingerprint() != other.fingerprint()
    longer = Counting(batch_size=1, resolution=2)
    longer.length = 11
    assert data.fingerprint() != longer.fingerprint()


def test_tensor_set_scales_early_or_late_to_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.randint(0, 256, (5, 3, 7, 7), dtype=torch.uint8)
    early = TensorSet(pixels, resolution=16)
    monkeypatch.setattr("lit_gans.data.sets._KEEP_BYTES", 10)
    late = TensorSet(pixels, resolution=16)
    assert early.pixels.shape[-1] == 16 and late.pixels.shape[-1] == 7
    indices = torch.tensor([4, 0])
    assert torch.equal(early.fetch(indices)["image"], late.fetch(indices)["image"])
    assert "label" not in early.fetch(indices)


def test_resize_keeps_what_fits_and_flat_pictures_flat() -> None:
    flat = torch.full((2, 1, 8, 8), 200, dtype=torch.uint8)
    assert resize(flat, 8) is flat
    for size in (3, 32):
        assert resize(flat, size).unique().tolist() == [200]
    edge = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    edge[..., 4:] = 255
    assert resize(edge, 32).min() == 0 and resize(edge, 32).max() == 255, "bicubic overshoot is clamped, not wrapped"
    assert (resize(edge, 32)[..., :8] == 0).all()


def test_tensor_set_digest_sees_a_pixel_and_a_label() -> None:
    pixels, labels = torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 2])
    changed = pixels.clone()
    changed[2, 0, 3, 3] = 1
    assert len({TensorSet(pixels, labels).digest(), TensorSet(changed, labels).digest(),
                TensorSet(pixels, labels.flip(0)).digest(), TensorSet(pixels).digest()}) == 4  # fmt: skip
