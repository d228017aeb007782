"""BigGAN's layers: spectral normalisation, norms that are told classes and latents, attention."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, embedding, instance_norm, linear, max_pool2d, normalize

from lit_gans.base.processes import mean_over_processes, rank_and_world
from lit_gans.nn import BatchNorm
from lit_gans.nn.resample import no_autocast
from lit_gans.nn.spectral_norm import SpectralConv2d, SpectralLayer, SpectralLinear

WeightNorm = Literal["spectral", "stored", "none"]
Norm = Literal["batch", "instance", "none"]
Init = Literal["orthogonal", "normal", "xavier"]
Statistics = tuple[Tensor, Tensor]  # mean and variance [C]
MOMENTUM = 0.1  # of running statistics
OUT_EPS = 1e-5  # of the generator's last norm, whatever the others have


# ---- spectral normalisation ------------------------------------------------------------------------------------------


class PowerIteration(nn.Module):
    """What the layers have in common: `u0` [1, O], and `normalised`, their weight over its largest singular value.

    Each pass makes `steps` steps of power iteration and uses what they lead to; passes in training keep it. In
    evaluation each begins where training ended, so that unlike in `nn.spectral_norm` no vector beside u is stored. The
    gradient of the singular value goes through the weight alone. With `vectors` above 1 further singular vectors follow
    the first, each free of those before it, and all values are in `sv0`, `sv1`, ..., for watching (Sec. 4.1); the
    weight is divided by the first.
    """

    weight: Tensor

    def add_vectors(self, *, vectors: int, steps: int, eps: float) -> None:
        """To be called once the weight is there."""
        if vectors < 1 or steps < 1:
            raise ValueError(f"sn_vectors {vectors} and sn_steps {steps}: power iteration needs 1 or more of each")
        self.vectors, self.steps, self.sn_eps = vectors, steps, eps
        for number in range(vectors):
            self.register_buffer(f"u{number}", torch.randn(1, len(self.weight)))
            self.register_buffer(f"sv{number}", torch.ones(1))

    def normalised(self) -> Tensor:
        with no_autocast(self.weight):
            matrix = self.weight.flatten(1)  # [O, the rest]
            for _ in range(self.steps if self.training else 1):  # in evaluation each would begin where the last did
                us, vs = self._iterate(matrix.detach())
            values = [(v @ matrix.T @ u.T).view(1) for u, v in zip(us, vs, strict=True)]
            if self.training:
                for number, value in enumerate(values):
                    getattr(self, f"sv{number}").copy_(value.detach())
            return self.weight / values[0]

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """One step: left [1, O] and right vectors [1, the rest]."""
        us, vs = list[Tensor](), list[Tensor]()
        for number in range(self.vectors):
            kept = getattr(self, f"u{number}")
            vs.append(normalize(without(kept @ matrix, vs), eps=self.sn_eps))
            us.append(normalize(without(vs[-1] @ matrix.T, us), eps=self.sn_eps))
            if self.training:
                kept.copy_(us[-1])
        return us, vs


def without(x: Tensor, others: Sequence[Tensor]) -> Tensor:
    """The row x [1, N] without what it has of the rows before it (Gram-Schmidt)."""
    for y in others:
        x = x - (y @ x.T) * y / (y @ y.T)
    return x


class SNConv2d(nn.Conv2d, PowerIteration):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.normalised(), self.bias)


class SNLinear(nn.Linear, PowerIteration):
    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.normalised(), self.bias)


class SNEmbedding(nn.Embedding, PowerIteration):
    """The rows of the table count as what comes out: `u0` is [1, classes]."""

    def forward(self, input: Tensor) -> Tensor:
        return embedding(input, self.normalised())


@dataclass(frozen=True)
class Layers:
    """Makes a network's layers.

    norm: of weights: "spectral" as above; "stored" for weights that bring both their vectors, which evaluation then
    uses as they are (`nn.spectral_norm`); "none". eps: of the lengths that vectors are divided by.
    """

    norm: WeightNorm = "spectral"
    eps: float = 1e-12
    vectors: int = 1
    steps: int = 1

    def __post_init__(self) -> None:
        if self.norm not in ("spectral", "stored", "none"):
            raise ValueError(f"weight_norm {self.norm!r} is not one of spectral, stored, none")

    def conv(self, fan_in: int, fan_out: int, kernel_size: int = 3, *, bias: bool = True) -> nn.Module:
        padding = kernel_size // 2
        if self.norm == "stored":
            return SpectralConv2d(fan_in, fan_out, kernel_size, padding=padding, bias=bias)
        made = nn.Conv2d if self.norm == "none" else SNConv2d
        return self._finished(made(fan_in, fan_out, kernel_size, padding=padding, bias=bias))

    def linear(self, fan_in: int, fan_out: int, *, bias: bool = True) -> nn.Module:
        if self.norm == "stored":
            return SpectralLinear(fan_in, fan_out, bias=bias)
        return self._finished((nn.Linear if self.norm == "none" else SNLinear)(fan_in, fan_out, bias=bias))

    def embedding(self, rows: int, width: int) -> nn.Module:
        return self._finished((SNEmbedding if self.norm == "spectral" else nn.Embedding)(rows, width))

    def _finished(self, layer: nn.Module) -> nn.Module:
        if isinstance(layer, PowerIteration):
            layer.add_vectors(vectors=self.vectors, steps=self.steps, eps=self.eps)
        return layer


@torch.no_grad()
def initialise(network: nn.Module, how: Init) -> None:
    """Weights of convolutions, linear layers and tables: orthogonal, from N(0, 0.02), or Xavier's."""
    inits: dict[str, Callable[[Tensor], Tensor]] = {
        "orthogonal": nn.init.orthogonal_,
        "normal": functools.partial(nn.init.normal_, std=0.02),
        "xavier": nn.init.xavier_uniform_,
    }
    if how not in inits:
        raise ValueError(f"init {how!r} is not one of {', '.join(inits)}")
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear, nn.Embedding)):
            inits[how](layer.weight)
            if isinstance(layer, SpectralLayer):
                layer.approach()


# ---- norms -----------------------------------------------------------------------------------------------------------


class BatchStatistics(BatchNorm):
    """x [N, C, H, W] without mean and with variance 1: in training those of the global batch, else running ones.

    biased: the running variance is that of the batches as they are, and not times n / (n - 1). `gathered` and
    `standing` are of `gathering` and `standing_in`.
    """

    def __init__(self, channels: int, *, eps: float, biased: bool = False) -> None:
        super().__init__(channels, eps, MOMENTUM, affine=False)
        # The momentum is fixed: nobody reads the counter, which the official code has not.
        self.register_buffer("num_batches_tracked", torch.tensor(0), persistent=False)
        self.biased = biased
        self.gathered: list[Statistics] | None = None
        self.standing: Statistics | None = None

    def _load_from_state_dict(self, *args: object) -> None:
        nn.Module._load_from_state_dict(self, *args)  # type: ignore[arg-type]  # that of batch norms wants the counter

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        if self.gathered is not None:  # of this process's own images, which all processes draw alike
            self.gathered.append(self.statistics(x))
            return self._of_batch(x)
        if self.training:
            before = self.running_var.clone() if self.biased else None  # type: ignore[union-attr]
            y = self._of_global_batch(x)
            if before is not None:
                self._make_biased(before, x)
            return y
        return self._by(x, (self.running_mean, self.running_var) if self.standing is None else self.standing)

    def statistics(self, x: Tensor) -> Statistics:
        x = x.detach().float()
        return x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)

    def _of_batch(self, x: Tensor) -> Tensor:
        return batch_norm(x, None, None, training=True, eps=self.eps)

    def _of_global_batch(self, x: Tensor) -> Tensor:
        return super().forward(x)

    def _by(self, x: Tensor, statistics: Statistics) -> Tensor:
        return batch_norm(x, *statistics, training=False, eps=self.eps)

    @torch.no_grad()
    def _make_biased(self, before: Tensor, x: Tensor) -> None:
        """Takes n / (n - 1) from what this batch has added to the running variance."""
        _, world = rank_and_world()
        n = world * x.numel() // x.shape[1]
        kept = (1 - MOMENTUM) * before
        self.running_var.copy_(kept + (self.running_var - kept) * ((n - 1) / n))  # type: ignore[union-attr, operator]


class InstanceStatistics(BatchStatistics):
    """In training each image's own; the running ones, which evaluation takes, are means over images."""

    def statistics(self, x: Tensor) -> Statistics:
        x = x.detach().float()
        return x.mean((2, 3)).mean(0), x.var((2, 3)).mean(0)

    def _of_batch(self, x: Tensor) -> Tensor:
        return instance_norm(x, eps=self.eps)

    def _of_global_batch(self, x: Tensor) -> Tensor:
        y = instance_norm(x, self.running_mean, self.running_var, momentum=MOMENTUM, eps=self.eps)
        with torch.no_grad():
            for kept in (self.running_mean, self.running_var):
                kept.copy_(mean_over_processes(kept.clone()))  # type: ignore[union-attr]
        return y


class StatisticsTable(nn.Module):
    """x by means and variances [S, C] that were gathered at S truncations, from 0 to 1 in equal steps, in every mode.

    `psi`: at which. Between two of them they are interpolated; at any of them they are the released modules' own.
    """

    def __init__(self, channels: int, rows: int, *, eps: float) -> None:
        super().__init__()
        self.eps, self.psi = eps, 1.0
        self.register_buffer("means", torch.zeros(rows, channels))
        self.register_buffer("variances", torch.ones(rows, channels))

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.means) - 1  # type: ignore[arg-type]
        place = round(self.psi * last, 6)  # 0.58 * 50 is a little less than 29
        low, high, share = int(place), min(int(place) + 1, last), place - int(place)
        mean, var = (t[low].lerp(t[high], share) for t in (self.means, self.variances))  # type: ignore[index]
        return batch_norm(x, mean, var, training=False, eps=self.eps)


class PlainNorm(nn.Module):
    """x [N, C, H, W] normalised, with a gain and a shift of each channel; c is not looked at."""

    def __init__(self, norm: nn.Module, channels: int) -> None:
        super().__init__()
        self.norm = norm
        self.gain, self.shift = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return self.norm(x) * self.gain[:, None, None] + self.shift[:, None, None]


class ConditionalNorm(nn.Module):
    """x [N, C, H, W] normalised; its gain, around 1, and shift are layers of c: [N, E], or classes [N] for a table."""

    def __init__(self, norm: nn.Module, gain: nn.Module, shift: nn.Module) -> None:
        super().__init__()
        self.norm, self.gain, self.shift = norm, gain, shift

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        gain, shift = 1 + self.gain(c), self.shift(c)
        return self.norm(x) * gain[:, :, None, None] + shift[:, :, None, None]


@dataclass(frozen=True)
class Norms:
    """Makes a generator's norms.

    kind: "batch", "instance" or "none", which leaves x as it is. width: of the condition, 0 without one. classes: where
    each norm has a table of its own of so many classes instead. rows: of `StatisticsTable`, 0 for running statistics.
    """

    layers: Layers
    kind: Norm = "batch"
    width: int = 0
    classes: int = 0
    eps: float = 1e-5
    out_eps: float = OUT_EPS
    biased: bool = False
    rows: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("batch", "instance", "none"):
            raise ValueError(f"norm {self.kind!r} is not one of batch, instance, none")

    def __call__(self, channels: int) -> nn.Module:
        """Of a block."""
        if self.classes:  # as the official code has it, never under spectral normalisation
            gain, shift = (nn.Embedding(self.classes, channels) for _ in range(2))
        elif self.width:
            gain, shift = (self.layers.linear(self.width, channels, bias=False) for _ in range(2))
        else:
            return PlainNorm(self._statistics(channels, self.eps), channels)
        return ConditionalNorm(self._statistics(channels, self.eps), gain, shift)

    def out(self, channels: int) -> PlainNorm:
        """Before the image: of the batch whatever `kind` is, as in the official code."""
        if self.rows:
            return PlainNorm(StatisticsTable(channels, self.rows, eps=self.out_eps), channels)
        return PlainNorm(BatchStatistics(channels, eps=self.out_eps, biased=self.biased), channels)

    def _statistics(self, channels: int, eps: float) -> nn.Module:
        if self.rows:
            return StatisticsTable(channels, self.rows, eps=eps)
        if self.kind == "none":
            return nn.Identity()
        kind = BatchStatistics if self.kind == "batch" else InstanceStatistics
        return kind(channels, eps=eps, biased=self.biased)


# ---- standing statistics ---------------------------------------------------------------------------------------------


def norms_of(network: nn.Module) -> list[BatchStatistics]:
    """Those that keep running statistics."""
    return [module for module in network.modules() if isinstance(module, BatchStatistics)]


@torch.no_grad()
def gather(network: nn.Module, inputs: Sequence[tuple[Tensor, Tensor | None]]) -> list[Statistics]:
    """Mean and variance of each of `norms_of`: means over passes in training mode, one for each (z, labels).

    Running statistics stay; vectors of power iteration move in each pass, as in the official code.
    """
    norms, modes = norms_of(network), [(module, module.training) for module in network.modules()]
    try:
        for norm in norms:
            norm.gathered = []
        network.train()
        for z, labels in inputs:
            network.forward(z, labels)  # also where calls are compiled
        found = [list(zip(*(norm.gathered or []), strict=True)) for norm in norms]
    finally:
        for norm in norms:
            norm.gathered = None
        for module, training in modes:
            module.training = training
    return [(torch.stack(means).mean(0), torch.stack(variances).mean(0)) for means, variances in found]


@contextmanager
def standing_in(network: nn.Module, statistics: Sequence[Statistics] | None) -> Iterator[None]:
    """Inside, evaluation takes these in the place of running statistics; None changes nothing."""
    norms = norms_of(network) if statistics is not None else []
    for norm, own in zip(norms, statistics or (), strict=True):
        norm.standing = own
    try:
        yield
    finally:
        for norm in norms:
            norm.standing = None


@contextmanager
def vectors_kept(network: nn.Module) -> Iterator[None]:
    """Vectors of power iteration move inside; after, they and their values are as they were."""
    layers = [module for module in network.modules() if isinstance(module, PowerIteration)]
    kept = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers(recurse=False)]
    try:
        yield
    finally:
        for buffer, before in kept:
            buffer.copy_(before)


# ---- attention -------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Each place of x [N, C, H, W] adds what it finds at a quarter of the places (Zhang et al., 2019, Sec. 3).

    gamma, how much of it, begins at 0.
    """

    def __init__(self, channels: int, layers: Layers) -> None:
        super().__init__()
        if channels < 8:
            raise ValueError(f"attention over {channels} channels: its keys have an eighth of them; widen the network")
        self.theta, self.phi = (layers.conv(channels, channels // 8, 1, bias=False) for _ in range(2))
        self.g = layers.conv(channels, channels // 2, 1, bias=False)
        self.o = layers.conv(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        query = self.theta(x).flatten(2)  # [N, C / 8, H W]
        key, value = (max_pool2d(conv(x), 2).flatten(2) for conv in (self.phi, self.g))  # [N, C / 8 or / 2, H W / 4]
        weights = torch.softmax(query.transpose(1, 2) @ key, dim=-1)  # [N, H W, H W / 4]
        found = (value @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.gamma * self.o(found)
