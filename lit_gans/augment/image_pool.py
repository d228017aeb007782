"""A history of fakes, so that a discriminator does not forget what the generator made before."""

from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.base.processes import of_all_processes, rank_and_world
from lit_gans.base.random import Draws


class ImagePool(nn.Module):
    """Shows the discriminator former fakes in place of half of the new ones (Shrivastava et al., 2017, Sec. 2.3).

    In CycleGAN's form (Zhu et al., 2017, Sec. 4): the first `size` images fill the pool and are shown as they are.
    After that each image, one by one, is with probability 0.5 put into the place of a random stored one, which is
    shown; else it is shown itself and not stored.

    The buffer `images` [stored, C, H, W] is saved with the weights, so that a resumed run goes on with the same
    history. All processes hold the pool of the global batch.

    Args:
        size: how many images are stored; 0 shows every image as it is.
    """

    images: Tensor

    def __init__(self, size: int = 50) -> None:
        super().__init__()
        if size < 0:
            raise ValueError(f"pool size {size} is negative; 0 keeps no former fakes, 50 is CycleGAN's")
        self.size = size
        self.register_buffer("images", torch.empty(0))

    @torch.no_grad()
    def query(self, images: Tensor, draws: Draws) -> Tensor:
        """images [N, C, H, W] of this process -> as many, detached, new ones or former ones.

        `draws` is this process's share of the random stream of one query, for its whole batch.

        Raises:
            ValueError: the stored images have another shape.
        """
        images = images.detach()
        if self.size == 0:
            return images
        world = rank_and_world()[1]
        assert draws.shares == world, "a pool is asked with the whole batch of a process, not with a micro-batch"
        everyone = of_all_processes(images)
        # Drawn by every process for the global batch, on the CPU: the decisions need no word from a GPU.
        chance, place = Draws(*draws.key).uniform(len(everyone), 2).unbind(1)
        shown = self.exchange(everyone, chance=chance.tolist(), place=place.tolist())
        return shown.chunk(world)[draws.share]

    @torch.no_grad()
    def exchange(self, images: Tensor, *, chance: list[float], place: list[float]) -> Tensor:
        """images [N, C, H, W] -> [N, C, H, W], with the random numbers given.

        chance[i] above 0.5 exchanges image i for the stored one number floor(place[i] * size); both in [0, 1).
        """
        self._check(images)
        room = max(self.size - len(self.images), 0)
        if room:
            stored = [] if self.images.ndim == 1 else [self.images]
            self.images = torch.cat([*stored, images[:room]])
        shown = list(images)
        for i in range(room, len(images)):
            if chance[i] > 0.5:
                at = int(place[i] * self.size)
                shown[i] = self.images[at].clone()
                self.images[at] = images[i]
        return torch.stack(shown)

    def _check(self, images: Tensor) -> None:
        if self.images.ndim > 1 and self.images.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"the pool stores images of shape {tuple(self.images.shape[1:])}, and now they are "
                f"{tuple(images.shape[1:])}: train with images of one size, or with pool_size=0"
            )

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """The pool grows in training, so a saved one has a shape of its own."""
        saved = state_dict.get(f"{prefix}images")
        if saved is not None:
            self.images = torch.empty_like(saved, device=self.images.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        return f"size={self.size}"


def pool_buffers(module: nn.Module) -> set[str]:
    """The names in the state dict of `module` that belong to pools, whose shapes change in training."""
    parts = ((name, part) for name, part in module.named_modules() if isinstance(part, ImagePool))
    return {f"{name}.images" if name else "images" for name, _ in parts}
