"""StyleCLIP's second method: a latent mapper, trained for one text (Patashnik et al., 2021, Sec. 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.adversarial import GAN
from lit_gans.adversarial.capabilities import HasStyles, class_labels, require
from lit_gans.base.checkpoints import under
from lit_gans.base.random import derive_seed
from lit_gans.editing.found import read_found, write_found
from lit_gans.editing.state import weights_digest
from lit_gans.editing.text.image_text import ImageText
from lit_gans.editing.text.losses import Identity, identity_distance, text_distance
from lit_gans.nn.equalized import EqualizedLinear
from lit_gans.nn.mode import evaluating
from lit_gans.papers.projected_gan.features import seeded

KIND, WAY_OUT = "a latent mapper", "train one with train_mapper"
LEVELS = {"coarse": slice(0, 4), "medium": slice(4, 8), "fine": slice(8, None)}  # Sec. 5: rows of ws
STRENGTH = 0.1  # of what a mapper says, in the code; the paper has 1
OFFICIAL_KEYS = {
    rf"{theirs}_mapping\.mapping\.(.+)": rf"levels.{ours}.\1"
    for theirs, ours in (("course", "coarse"), ("medium", "medium"), ("fine", "fine"))
}


class UnitOverLayers(nn.Module):
    """ws [N, l, W] divided by the root of their mean square over the layers l of a group.

    The code's PixelNorm takes the second dimension, which is that of channels in pictures. Where all layers have one
    w, only its signs are left. We follow the code: published mappers are trained so.
    """

    def forward(self, ws: Tensor) -> Tensor:
        return ws * (ws.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class LatentMapper(nn.Module):
    """ws [N, L, W] -> what is added to them [N, L, W]: a network of four layers for each group of rows (Sec. 5).

    levels: which groups have one, of "coarse", "medium" and "fine"; the rows of others stay.
    """

    def __init__(self, w_dim: int, *, levels: Sequence[str] = tuple(LEVELS)) -> None:
        super().__init__()
        wrong = [level for level in levels if level not in LEVELS]
        if wrong or not levels:
            raise ValueError(f"levels {list(levels)}: give one or more of {', '.join(LEVELS)}")
        self.w_dim = w_dim
        self.levels = nn.ModuleDict({level: _network(w_dim) for level in LEVELS if level in levels})

    def forward(self, ws: Tensor) -> Tensor:
        parts = {level: ws[:, rows] for level, rows in LEVELS.items()}
        made = [self.levels[level](x) if level in self.levels else torch.zeros_like(x) for level, x in parts.items()]
        return torch.cat(made, 1)


def _network(w_dim: int) -> nn.Sequential:
    layers = (EqualizedLinear(w_dim, w_dim, activation="lrelu", lr_multiplier=0.01) for _ in range(4))
    return nn.Sequential(UnitOverLayers(), *layers)


def mapped(mapper: LatentMapper, ws: Tensor, *, strength: float = STRENGTH) -> Tensor:
    """ws [N, L, W] -> edited ws. ValueError for ws of another width."""
    if ws.shape[-1] != mapper.w_dim:
        raise ValueError(f"ws {list(ws.shape)} for a mapper of {mapper.w_dim} channels: it is of another model")
    return ws + strength * mapper(ws)


def mapper_loss(
    ws: Tensor,
    ws_hat: Tensor,
    text: Tensor,
    identity: Tensor | None = None,
    *,
    clip_weight: float = 1.0,
    l2_weight: float = 0.8,
    id_weight: float = 0.1,
) -> Tensor:
    """Scalar of ws and edited ws [N, L, W], distances to the text [N], and of who is seen [N] (Eq. 4).

    The shift counts as a mean here, in `optimize_latents` as a sum: both as in the code.
    """
    loss = clip_weight * text.mean() + l2_weight * F.mse_loss(ws_hat, ws)
    return loss if identity is None else loss + id_weight * identity.mean()


# ---- training one ----------------------------------------------------------------------------------------------------


class Ranger:
    """RAdam with Lookahead and centralised gradients (Wright, 2019), which StyleCLIP's mappers are trained with."""

    def __init__(self, parameters: Iterator[nn.Parameter], *, lr: float, every: int = 6, share: float = 0.5) -> None:
        self.parameters, self.every, self.share, self.steps = list(parameters), every, share, 0
        self.inner = torch.optim.RAdam(self.parameters, lr=lr, betas=(0.95, 0.999), eps=1e-5)
        self.slow = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        for p, gradient in zip(self.parameters, gradients, strict=True):
            p.grad = gradient if p.ndim == 1 else gradient - gradient.mean(tuple(range(1, p.ndim)), keepdim=True)
        self.inner.step()
        self.steps += 1
        if self.steps % self.every == 0:
            for slow, p in zip(self.slow, self.parameters, strict=True):
                p.copy_(slow.lerp_(p, self.share))

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, by name."""
        found = {f"slow.{i}": slow for i, slow in enumerate(self.slow)}
        inner = self.inner.state_dict()["state"]
        return found | {f"inner.{i}.{name}": value for i, one in inner.items() for name, value in one.items()}

    def load(self, state: Mapping[str, Tensor], steps: int) -> None:
        whole = self.inner.state_dict()
        for name, value in state.items():
            kind, number, *rest = name.split(".")
            if kind == "slow":
                self.slow[int(number)].copy_(value)
            else:
                whole["state"].setdefault(int(number), {})[rest[0]] = value.clone()
        self.inner.load_state_dict(whole)
        self.steps = steps


def train_mapper(
    model: GAN,
    text: str,
    path: str | Path,
    *,
    image_text: ImageText,
    identity: Identity | None = None,
    levels: Sequence[str] = tuple(LEVELS),
    steps: int = 50_000,
    batch_size: int = 2,
    lr: float = 0.5,
    clip_weight: float = 1.0,
    l2_weight: float = 0.8,
    id_weight: float = 0.1,
    psi: float = 0.7,
    label: int | None = None,
    seed: int = 0,
    ema: bool = True,
    save_every: int = 1000,
    on_step: Callable[[int, int, float], None] | None = None,
) -> LatentMapper:
    """The mapper of a text, trained on the model's own latents and written to `path`.

    Every `save_every` steps it is written with all that the next step depends on; called again with the same settings
    it goes on there, to the same end bit for bit on the CPU. identity None: id_weight has no use. Latents are drawn
    anew for each step, of (seed, step); the code draws 5000 once. label: the class of all; by default all by turns.
    ValueError for a model without W, and a file at `path` of other settings; levels as for `LatentMapper`.
    """
    require(model, HasStyles, "a latent mapper")
    if steps < 1 or batch_size < 1 or save_every < 1:
        raise ValueError(f"steps {steps}, batch_size {batch_size} and save_every {save_every}: give 1 or more of each")
    settings = {
        "text": text, "image_text": image_text.name, "image_text_fingerprint": image_text.fingerprint,
        "identity": identity is not None, "levels": list(levels), "batch_size": batch_size, "lr": lr,
        "clip_weight": clip_weight, "l2_weight": l2_weight, "id_weight": id_weight, "psi": psi, "label": label,
        "seed": seed, "ema": ema, "generator": weights_digest(model, ema=ema),
    }  # fmt: skip
    latents = _Latents(model, batch_size, psi=psi, label=label, seed=seed, ema=ema)
    with seeded(derive_seed(seed, "mapper")):
        mapper = LatentMapper(latents(0).shape[-1], levels=levels).to(model.device)
    optimizer = Ranger(mapper.parameters(), lr=lr)
    done = _taken_up(Path(path), mapper, optimizer, settings, steps)
    with evaluating(model), torch.enable_grad():
        target = image_text.embed_texts([text]).detach()
        for step in range(done, steps):
            ws = latents(step)
            ws_hat = mapped(mapper, ws)
            images = model.synthesize(ws_hat, ema=ema)
            fit = text_distance(image_text.embed_images(images), target, logit_scale=image_text.logit_scale)
            seen = None
            if identity is not None and id_weight:
                with torch.no_grad():
                    before = model.synthesize(ws, ema=ema)
                seen = identity_distance(identity, images, before)
            loss = mapper_loss(
                ws, ws_hat, fit, seen, clip_weight=clip_weight, l2_weight=l2_weight, id_weight=id_weight
            )
            optimizer.step(torch.autograd.grad(loss, list(mapper.parameters())))
            if on_step is not None:
                on_step(step + 1, steps, loss.item())
            if (step + 1) % save_every == 0 or step + 1 == steps:
                _write(Path(path), mapper, optimizer, settings, ends=step + 1 == steps)
    return mapper.eval().requires_grad_(False)


class _Latents:
    """ws [N, L, W] of a step."""

    def __init__(self, model: GAN, size: int, *, psi: float, label: int | None, seed: int, ema: bool) -> None:
        self.model, self.size, self.seed, self.label = model, size, seed, label
        self.how = {"psi": psi, "ema": ema}

    @torch.no_grad()
    def __call__(self, step: int) -> Tensor:
        seeds = [derive_seed("mapper", self.seed, step, row) for row in range(self.size)]
        label = None if self.label is None else torch.full((self.size,), self.label)
        labels = class_labels(self.model, seeds, label)
        return self.model.styles(self.model.seeded_latents(seeds), labels=labels, **self.how)


# ---- its file --------------------------------------------------------------------------------------------------------


def _write(path: Path, mapper: LatentMapper, optimizer: Ranger, settings: Mapping[str, Any], *, ends: bool) -> None:
    tensors = {f"mapper.{name}": tensor for name, tensor in mapper.state_dict().items()}
    if not ends:
        tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer.state().items()}
    write_found(path, KIND, tensors, {"steps": optimizer.steps, "w_dim": mapper.w_dim, **settings})


def _taken_up(path: Path, mapper: LatentMapper, optimizer: Ranger, settings: Mapping[str, Any], steps: int) -> int:
    """How many steps the file at `path` has behind it, which mapper and optimiser then have too; 0 without one."""
    if not path.exists():
        return 0
    tensors, said = read_found(path, KIND, way_out=WAY_OUT)
    other = [f"{name} {said.get(name)!r}, not {value!r}" for name, value in settings.items() if said.get(name) != value]
    if other:
        raise ValueError(f"{path} is a mapper of other settings ({'; '.join(other)}): give another path, or remove it")
    state = under(tensors, "optimizer.")
    if said["steps"] > steps or (not state and said["steps"] < steps):
        raise ValueError(f"{path} has {said['steps']} steps behind it, and {steps} are asked for: give another path")
    mapper.load_state_dict(under(tensors, "mapper."))
    if state:
        optimizer.load(state, said["steps"])
    return said["steps"]


def read_mapper(path: str | Path) -> tuple[LatentMapper, dict[str, Any]]:
    """(the mapper, how it was made) of a file from `train_mapper`, finished or not.

    FileNotFoundError; ValueError for another file, or a damaged one.
    """
    tensors, said = read_found(path, KIND, way_out=WAY_OUT)
    mapper = LatentMapper(said["w_dim"], levels=said["levels"])
    mapper.load_state_dict(under(tensors, "mapper."))
    return mapper.eval().requires_grad_(False), said
