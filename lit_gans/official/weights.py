"""Published weights of the networks that features come from: found where they are kept, else downloaded once."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from lit_gans.base.checkpoints import read_weights
from lit_gans.official import HostilePickle
from lit_gans.official.torchscript import is_torchscript, read_torchscript


def read_published(path: Path) -> dict[str, Tensor]:
    """As `read_weights`, and of a TorchScript archive the tensors by the names they have in it; its code is never run.

    FileNotFoundError where there is none; ValueError where it holds anything but tensors, or is damaged.
    """
    if path.suffix == ".safetensors" or not is_torchscript(path):
        return read_weights(path)
    try:
        tensors = read_torchscript(path)
    except HostilePickle as error:
        raise ValueError(f"{path} is damaged or holds more than tensors, and is not read: {error}") from error
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
