"""Pictures that are nearly the same are found, others are not; few are called few."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lit_gans.data import Images, TensorSet
from lit_gans.data.advice import advice, nearly_alike

from .common import real


def pictures(count: int, size: int = 64) -> Tensor:
    """Smooth noise, every picture its own."""
    rng = np.random.default_rng(0)
    small = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)) for _ in range(count)]
    return torch.stack([_tensor(each.resize((size, size), Image.Resampling.BICUBIC)) for each in small])


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def worse(picture: Tensor) -> Tensor:
    """Smaller, saved badly, and back."""
    image, file = Image.fromarray(picture.permute(1, 2, 0).numpy()), io.BytesIO()
    image.resize((40, 40)).save(file, "jpeg", quality=50)
    return _tensor(Image.open(file).resize(image.size))


def test_copies_are_found_and_nothing_else() -> None:
    pixels = pictures(40)
    pixels[31], pixels[7] = worse(pixels[3]), pixels[20]
    assert nearly_alike(TensorSet(pixels)) == ([(3, 31), (7, 20)], 40)


def test_of_many_some_are_looked_at_for_a_bounded_time() -> None:
    pixels = pictures(200)
    assert nearly_alike(TensorSet(pixels), most=50).looked_at == 50
    assert nearly_alike(TensorSet(pixels), seconds=0).looked_at == 64  # a batch


def test_faces_of_different_people_are_not_alike() -> None:
    images = Images(str(real("celeba")), batch_size=1, resolution=64, labels="none").dataset()
    assert nearly_alike(images).pairs == []


@pytest.mark.parametrize("augmented", [True, False])
def test_few(augmented: bool) -> None:
    told = advice(63, augmented=augmented, mirrored=not augmented)
    assert told.startswith("63 pictures are few: ") and told.count("(is on)") == 1
    assert ("model.init_args.augment" in told) is not augmented and ("mirror=true" in told) is augmented
    assert advice(1000, augmented=augmented, mirrored=False) == ""
