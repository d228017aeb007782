"""Small networks in the plane, put in the place of a paper's own: its game is then played for points.

What stays is the paper's: losses, penalties, how often and in which order the players step, optimisers, priors. What
goes is what its networks have for pictures: convolutions, norms, growth, noise, deviation over the minibatch. A point
is a picture of one pixel with two channels, [N, 2, 1, 1]: penalties and path lengths read it as any other.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from lit_gans.adversarial import GAN

Form = Literal["plain", "scales", "encoder"]
W_AVG_DECAY = 0.995  # of the running mean of w, as StyleGAN has it


class Layer(nn.Linear):
    """A linear layer of what comes in over the root of its mean square, which is 1 unless a game tracks it.

    Karras et al. (2021, App. C) normalise so; in all other games it is a linear layer.
    """

    magnitude_ema: Tensor

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(fan_in, fan_out)
        self.register_buffer("magnitude_ema", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.magnitude_ema.rsqrt())

    @torch.no_grad()
    def track(self, magnitude: Tensor, *, decay: float) -> None:
        """Moves the running mean towards the mean square of a batch."""
        self.magnitude_ema.lerp_(magnitude.to(self.magnitude_ema), 1 - decay)


class Mapping(nn.Module):
    """One layer: z [N, Z] -> ws [N, 1, W]. Styles of one layer alone cannot be mixed, and no game mixes them."""

    w_avg: Tensor

    def __init__(self, z_dim: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(z_dim, width)
        self.register_buffer("w_avg", torch.zeros(width))

    def forward(
        self, z: Tensor, labels: Tensor | None = None, *, psi: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        w = leaky_relu(self.layer(z), 0.2)
        return (w if psi == 1 else self.w_avg.lerp(w, psi))[:, None]

    @torch.no_grad()
    def track(self, mean: Tensor) -> None:
        """Moves the running mean of w towards that of a batch, [W]."""
        self.w_avg.lerp_(mean.to(self.w_avg), 1 - W_AVG_DECAY)


class Synthesis(nn.Module):
    """Two hidden layers: ws [N, 1, W] -> points [N, 2, 1, 1]. There is no noise, and half precision nowhere."""

    num_ws = num_present = 1

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(width, width), Layer(width, width), Layer(width, 2)])

    def forward(
        self, ws: Tensor, *, noise: str = "const", squares: list[Tensor] | None = None, force_fp32: bool = False
    ) -> Tensor:
        """squares: a list that takes the mean square of what comes into each layer."""
        x = ws[:, 0]
        for number, layer in enumerate(self.layers):
            x = x if number == 0 else leaky_relu(x, 0.2)
            if squares is not None:
                squares.append(x.detach().float().square().mean())
            x = layer(x)
        return x[:, :, None, None]


class Generator(nn.Module):
    """Three hidden layers of `width`: z [N, Z] -> points [N, 2, 1, 1]; its halves are what styled games ask for."""

    def __init__(self, z_dim: int, width: int) -> None:
        super().__init__()
        self.mapping, self.synthesis = Mapping(z_dim, width), Synthesis(width)

    def forward(self, z: Tensor, labels: Tensor | None = None, *, psi: float = 1.0, noise: str = "const") -> Tensor:
        return self.synthesis(self.mapping(z, psi=psi), noise=noise)


class Discriminator(nn.Module):
    """Three hidden layers of `width`: points [N, 2, 1, 1] -> logits [N]. `alpha`: it has grown already."""

    alpha = 1.0

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(2, width), nn.LeakyReLU(0.2)]
        for _ in range(2):
            layers += [nn.Linear(width, width), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.layers(images).flatten()


# ---- where a game asks for more than pictures and logits -------------------------------------------------------------


class ScalesGenerator(Generator):
    """Gives the picture at every scale: a point has one."""

    def forward(  # type: ignore[override]
        self, z: Tensor, labels: Tensor | None = None, *, psi: float = 1.0, noise: str = "const"
    ) -> list[Tensor]:
        return [super().forward(z, psi=psi, noise=noise)]

    def draw(self, z: Tensor, *, psi: float = 1.0) -> list[Tensor]:
        return self(z, psi=psi)


class ScalesDiscriminator(Discriminator):
    """Judges the picture at every scale."""

    def forward(self, images: list[Tensor], labels: Tensor | None = None) -> Tensor:  # type: ignore[override]
        (points,) = images
        return super().forward(points)


class EncoderDiscriminator(Discriminator):
    """Is asked for pictures made again as well, and has none: a quarter of a point is nothing that could be made."""

    def forward(  # type: ignore[override]
        self, images: Tensor, quarters: Tensor | None = None
    ) -> Tensor | tuple[Tensor, None, None]:
        logits = super().forward(images)
        return logits if quarters is None else (logits, None, None)


PLAYERS: dict[str, tuple[type[Generator], type[Discriminator]]] = {
    "plain": (Generator, Discriminator),
    "scales": (ScalesGenerator, ScalesDiscriminator),
    "encoder": (Generator, EncoderDiscriminator),
}


def into_plane(gan: GAN, *, form: Form = "plain", width: int = 64) -> None:
    """Puts networks in the plane in the place of the game's own, before its optimisers are made.

    There is no average of the generator: what is measured is the network that is trained. form: what the game asks of
    its players, see above.

    Raises:
        ValueError: another form, or a game with classes.
    """
    if form not in get_args(Form):
        raise ValueError(f"networks {form!r} are none of {', '.join(get_args(Form))}")
    if gan.num_classes:
        raise ValueError(f"{type(gan).__name__} has {gan.num_classes} classes, and points have none: set num_classes=0")
    generator, discriminator = PLAYERS[form]
    gan.generator, gan.discriminator = generator(gan.z_dim, width), discriminator(width)
    gan.generator_ema = None
    gan.resolution, gan.channels = 1, 2
