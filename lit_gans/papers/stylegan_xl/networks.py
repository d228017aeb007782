"""The generator of StyleGAN-XL (Sauer et al., 2022): StyleGAN3's at 16 pixels, grown by heads of more layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.nn.equalized import EqualizedLinear
from lit_gans.nn.resample import no_autocast
from lit_gans.papers import stylegan3
from lit_gans.papers.stylegan2.networks import Half, as_condition, unit_second_moment
from lit_gans.papers.stylegan3.networks import Signal, layers_of, schedule

PROGRESSION = 2  # layers at the end of a head whose cutoff is the highest, whatever the stem has


class ClassEmbedding(nn.Module):
    """Labels [N] or conditions [N, C] -> rows of a table [N, E]; the table is trained on.

    rows: 1000 by 320 numbers, the mean of EfficientNet-lite0's last features over each class of ImageNet (Sec. 3.1):
    row k starts class k of any data set. Without these weights the table is random.
    """

    def __init__(self, c_dim: int, rows: Sequence[int]) -> None:
        super().__init__()
        if c_dim > rows[0]:
            raise ValueError(
                f"{c_dim} classes, and a class embedding of {rows[0]} rows: set embedding=[{c_dim}, {rows[1]}]"
            )
        self.c_dim, self.weight = c_dim, nn.Parameter(torch.randn(*rows))

    def forward(self, c: Tensor | None) -> Tensor:
        return self.weight[self.labels(c)]

    def labels(self, c: Tensor | None) -> Tensor:
        """int64 [N]."""
        if c is None:
            raise ValueError(f"this network is conditional: give labels [N] or conditions [N, {self.c_dim}]")
        return as_condition(c, self.c_dim).argmax(1)


class MappingNetwork(nn.Module):
    """z [N, Z] and labels [N] or conditions [N, C] -> ws [N, L, W] (Sec. 3.1).

    A class has as many numbers beside z as z itself, from its embedding. `w_avg` [C, W] is the average of w of each
    class, [W] where there are none; `psi` truncates to it, or to the nearest of some `centroids`.
    """

    w_avg: Tensor

    def __init__(
        self,
        *,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int,
        num_layers: int = 2,
        embedding: Sequence[int] = (1000, 320),
        lr_multiplier: float = 0.01,
        w_avg_decay: float = 0.998,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.num_ws, self.w_avg_decay = z_dim, c_dim, num_ws, w_avg_decay
        self.embed = ClassEmbedding(c_dim, embedding) if c_dim else None
        self.embed_proj = EqualizedLinear(embedding[1], z_dim, activation="lrelu") if c_dim else None
        w = [2 * z_dim if c_dim else z_dim, *[w_dim] * num_layers]
        self.layers = nn.ModuleList(
            EqualizedLinear(fan_in, fan_out, activation="lrelu", lr_multiplier=lr_multiplier)
            for fan_in, fan_out in zip(w[:-1], w[1:], strict=True)
        )
        self.register_buffer("w_avg", torch.zeros(*[c_dim] * bool(c_dim), w_dim))

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        psi: float = 1.0,
        cutoff: int | None = None,
        centroids: Tensor | None = None,
    ) -> Tensor:
        """psi pulls w towards its class's average, or the nearest of centroids [K, W]; in `cutoff` layers or in all."""
        w = unit_second_moment(z)
        if self.embed is not None and self.embed_proj is not None:
            w = torch.cat([w, unit_second_moment(self.embed_proj(self.embed(c)))], 1)
        for layer in self.layers:
            w = layer(w)
        ws = w[:, None].expand(-1, self.num_ws, -1)  # [N, W] -> [N, L, W]
        if psi == 1:
            return ws
        near = self.centres(w, c, centroids)[:, None].lerp(ws, psi)
        return near if cutoff is None else torch.cat([near[:, :cutoff], ws[:, cutoff:]], 1)

    def centres(self, w: Tensor, c: Tensor | None, centroids: Tensor | None = None) -> Tensor:
        """What each of w [N, W] is truncated to: [N, W]."""
        if centroids is not None:
            return centroids[torch.cdist(w, centroids.to(w)).argmin(1)].to(w)
        return self.w_avg.expand_as(w) if self.embed is None else self.w_avg[self.embed.labels(c)]

    @torch.no_grad()
    def track(self, w: Tensor, c: Tensor | None) -> None:
        """Moves the averages towards w [N, W]: of each class by one sample after the other, as in the official code.

        All at once: a sample counts the less, the more of its class come after it.
        """
        w, decay = w.to(self.w_avg.dtype), self.w_avg_decay
        if self.embed is None:
            self.w_avg.lerp_(w.mean(0), 1 - decay)
            return
        labels = self.embed.labels(c)
        mine = (torch.arange(self.c_dim, device=w.device)[:, None] == labels).to(w)  # [C, N]
        later = (labels[:, None] == labels).triu(1).sum(1)  # samples of its class that follow each
        with no_autocast(w):
            self.w_avg.mul_(decay ** mine.sum(1, keepdim=True)).addmm_(mine * decay**later, w, alpha=1 - decay)


class SynthesisNetwork(stylegan3.SynthesisNetwork):
    """ws [N, L, W] -> images, by a stem (see StyleGAN3's) and heads, each of which raises the resolution (Sec. 3.3).

    A head takes the place of the critically sampled layers of what it stands on, and goes on from the last of the
    others. `layers` are numbered as in the official code, which skips the number where the stem is cut.

    Args:
        heads: of each, its resolution and how many layers it has without colours. The filters of all are separable and
            all convolutions 3x3, those on a stem of configuration R too, as in the official code.
        **stem: of StyleGAN3's network.
    """

    def __init__(
        self,
        *,
        heads: Sequence[Sequence[int]] = (),
        w_dim: int,
        channel_base: int = 65536,
        channel_max: int = 1024,
        num_critical: int = 2,
        num_half_res: int = 0,
        half_dtype: Half = "float16",
        last_stopband_rel: float = 2**0.3,
        margin_px: int = 10,
        **stem: Any,
    ) -> None:
        bands = {"channel_base": channel_base, "channel_max": channel_max, "margin_px": margin_px}
        bands |= {"last_stopband_rel": last_stopband_rel}
        shape = {"w_dim": w_dim, "num_half_res": num_half_res, "half_dtype": half_dtype}
        super().__init__(num_critical=num_critical, **bands, **shape, **stem)
        self.layers = nn.ModuleDict({str(i): layer for i, layer in enumerate(self.layers)})
        self.frozen = 0  # so many layers are a stem, trained before
        for resolution, num_layers in heads:
            self.frozen = sum(not signal.critical for signal in self.signals)
            head = head_signals(resolution, self.signals, num_layers=num_layers, num_critical=num_critical, **bands)
            self.signals = self.signals[: self.frozen] + head
            for name in list(self.layers)[self.frozen :]:
                del self.layers[name]
            for i, layer in enumerate(layers_of(head, self.signals[self.frozen - 1], resolution=resolution, **shape)):
                self.layers[str(self.frozen + 1 + i)] = layer
        self.num_ws = len(self.signals) + 1

    def head(self) -> dict[str, nn.Module]:
        """The layers of the last head by their numbers; all layers where there are no heads."""
        return dict(list(self.layers.items())[self.frozen :])


def head_signals(
    resolution: int, stem: Sequence[Signal], *, num_layers: int, num_critical: int = 2, **bands: Any
) -> list[Signal]:
    """Of the layers of a head on a stem: from its last band that is not critical to the whole of the new resolution.

    Raises:
        ValueError: the resolution is not 2, 4, 8 or 16 times the stem's.
    """
    factor, rest = divmod(resolution, stem[-1].size)
    if rest or factor not in (2, 4, 8, 16):
        raise ValueError(
            f"a head of {resolution} px on {stem[-1].size} px: it must raise the resolution 2, 4, 8 or 16 times"
        )
    last = [signal for signal in stem if not signal.critical][-1]
    start = {"first_cutoff": last.cutoff, "first_stopband": last.cutoff + last.half_width}
    channels = {"channels": stem[-1].channels}
    grown = schedule(resolution, num_layers=num_layers, num_critical=PROGRESSION, **start, **channels, **bands)
    found = [replace(s, critical=i >= num_layers - num_critical) for i, s in enumerate(grown)]
    return [replace(last, critical=found[0].critical), *found[1:]]


class Generator(nn.Module):
    """z [N, Z] (and labels [N] or conditions [N, C]) -> images; see `MappingNetwork` and `SynthesisNetwork`.

    resolution: of the stem, and of the images where there are no heads.
    """

    def __init__(
        self,
        *,
        resolution: int = 16,
        heads: Sequence[Sequence[int]] = (),
        channels: int = 3,
        z_dim: int = 64,
        c_dim: int = 0,
        w_dim: int = 512,
        mapping_layers: int = 2,
        embedding: Sequence[int] = (1000, 320),
        lr_multiplier: float = 0.01,
        w_avg_decay: float = 0.998,
        num_layers: int = 10,
        **synthesis: Any,
    ) -> None:
        super().__init__()
        shape = {"resolution": resolution, "channels": channels, "num_layers": num_layers, "heads": heads}
        self.synthesis = SynthesisNetwork(w_dim=w_dim, **shape, **synthesis)
        self.mapping = MappingNetwork(
            z_dim=z_dim,
            c_dim=c_dim,
            w_dim=w_dim,
            num_ws=self.synthesis.num_ws,
            num_layers=mapping_layers,
            embedding=embedding,
            lr_multiplier=lr_multiplier,
            w_avg_decay=w_avg_decay,
        )

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        psi: float = 1.0,
        cutoff: int | None = None,
        centroids: Tensor | None = None,
        force_fp32: bool = False,
    ) -> Tensor:
        ws = self.mapping(z, c, psi=psi, cutoff=cutoff, centroids=centroids)
        return self.synthesis(ws, force_fp32=force_fp32)

    def trained(self) -> Iterator[nn.Parameter]:
        """What the last stage trains: with heads, the last of them; all else is the stem, which stays as it is.

        The official code goes on training the Fourier features' mixing; the paper freezes the stem (Sec. 3.3).
        """
        parts = self.synthesis.head().values() if self.synthesis.frozen else [self]
        return (p for part in parts for p in part.parameters())

    def take_stem(self, state: Mapping[str, Tensor]) -> None:
        """Everything but the last head, from the state dict of the generator of the stage before.

        Raises:
            ValueError: it is of another generator.
        """
        head = tuple(f"synthesis.layers.{number}." for number in self.synthesis.head())
        ours = {name: t for name, t in self.state_dict().items() if not name.startswith(head)}
        if wrong := [name for name, t in ours.items() if name not in state or state[name].shape != t.shape]:
            raise ValueError(
                f"the stage before is not this one's stem in {len(wrong)} tensors ({', '.join(wrong[:3])}): give both "
                "the same stem and classes, and this one all heads of that one and one more"
            )
        self.load_state_dict({name: state[name] for name in ours}, strict=False)
