"""A generator of sums of waves, which moves exactly with its input, or not, or the other way."""

import math
from typing import Literal

import torch
from torch import Tensor

from lit_gans.adversarial.priors import Normal

KINDS = ["eq_t", "eq_t_frac", "eq_r"]
FREQS = torch.tensor([[1.0, 0.4], [-0.3, 2.1], [2.4, -1.2], [0.7, 0.9], [-2.0, -1.7], [0.2, -3.1]])  # x, y: per image


class Waves:
    """z [N, 6] = ws [N, 1, 6]: how strong each wave is. Images [N, 2, R, R]: sines, and cosines."""

    num_classes = 0
    device = torch.device("cpu")
    prior = Normal()

    def __init__(self, resolution: int, move: Literal["with", "stay", "back"] = "with") -> None:
        self.resolution, self.move = resolution, move

    def seeded_latents(self, seeds: Tensor) -> Tensor:
        return torch.stack([torch.randn(6, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds])

    def styles(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        return psi * z[:, None]

    def synthesize(self, ws: Tensor, *, ema: bool = True) -> Tensor:
        return self.synthesize_transformed(ws, torch.eye(3))

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        return self.synthesize(self.styles(z, psi=psi))

    def synthesize_transformed(self, ws: Tensor, transform: Tensor, *, ema: bool = True) -> Tensor:
        transform = {"with": transform, "stay": torch.eye(3), "back": transform.double().inverse()}[self.move]
        line = (torch.arange(self.resolution) + 0.5) / self.resolution - 0.5
        y, x = torch.meshgrid(line, line, indexing="ij")
        places = torch.stack([x, y, torch.ones_like(x)], 2).double() @ transform.double()[:2].T
        phases = 2 * math.pi * places @ FREQS.double().T  # [R, R, 6]
        waves = torch.stack([phases.sin(), (phases + 0.3).cos()]) / 6  # [2, R, R, 6]
        return (ws[:, 0] @ waves.flatten(0, 2).float().T).unflatten(1, waves.shape[:3])
