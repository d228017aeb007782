"""A stranger's data: grey stripes of several widths."""

import torch

from lit_gans.data import ImageData, ImageSet, TensorSet


class Stripes(ImageData):
    """60 pictures without classes; split "test" has those of odd number."""

    channels = 1

    def __init__(self, *, batch_size: int, resolution: int = 8, seed: int = 0) -> None:
        super().__init__(batch_size=batch_size, resolution=resolution, seed=seed)

    def load(self, split: str) -> ImageSet:
        number = torch.arange(60 if split == "train" else 30).view(-1, 1, 1, 1)
        across = torch.arange(self.resolution).view(1, 1, 1, -1)
        pictures = (255 * ((across + number) * (1 + number % 3) / 4).sin().abs()).to(torch.uint8)
        return TensorSet(pictures.expand(-1, 1, self.resolution, -1).contiguous())
