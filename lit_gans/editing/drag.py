"""Points of a generated image dragged to where they shall be: the styles follow.

DragGAN (Pan et al., 2023), https://arxiv.org/abs/2305.10973, Sections 3.2 and 3.3, in the order and with the numbers of
the official code. Points are (x, y) in pixels of the image: x from 0 at the left, y from 0 at the top.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.adversarial.capabilities import HasLayers, HasMargins, can, require
from lit_gans.base.images import as_channels, to_pil, to_uint8
from lit_gans.editing.layers import check_layers, synthesize_features
from lit_gans.nn.mode import evaluating

Points = Tensor | Sequence[Sequence[float]]
Features = Callable[[Tensor], tuple[Tensor, Tensor]]  # ws [1, L, W] -> (image [1, C, R, R], map [1, D, h, h])

PUBLISHED_PX = 512  # radii are given for images of this side
MAP_PX = 128  # of the feature map that points are told apart by: the sixth of StyleGAN2's blocks
R1, R2 = 3.0, 12.0
ACTIVE_PX = 1.0  # a point that is nearer to its target is not pulled any more
STOP_PX = 2.0
FRAME_PX = 256
HANDLE, TARGET, LINE = (230, 30, 30), (40, 90, 255), (255, 255, 255)  # as in the paper's figures


class DragStep(NamedTuple):
    """Where a drag is: `image` [1, C, R, R], not clamped, of the styles at the step's begin, and what was found in it.

    step: number from 0. handles: int64 [P, 2], where the points are now. distances: [P] from their targets, in pixels.
    arrived: all are within `stop_px`; nothing moves then.
    """

    step: int
    handles: Tensor
    distances: Tensor
    loss: float
    arrived: bool
    image: Tensor


@dataclass(frozen=True)
class Dragged:
    """Where a drag has ended; all tensors on the CPU.

    ws [1, L, W]; handles int64 [P, 2]; frames: uint8 [F, 3, 256, 256], or larger where 256 is no multiple of R, of all
    steps with the points drawn, the last one of `ws`; [0, ...] where none were asked for; reason: why it has ended.
    """

    ws: Tensor
    handles: Tensor
    steps: list[DragStep]
    frames: Tensor
    reason: Literal["arrived", "steps"]


class Drag:
    """A drag that goes on step by step: `ws` [1, L, W] and `handles` int64 [P, 2] are where it is.

    Args:
        features: the image of styles and the map that points are told apart by; `features_of` has it for a model.
        ws: [1, L, W], the styles to begin with.
        handles, targets: [P, 2] each, (x, y) in pixels, where points are and where they shall go; handles are rounded.
        mask: [R, R], 1 where the image shall stay as it is, 0 where it may change. A mask that is not both has no
            effect, as in the official code.
        r1, r2: radii of the patch that is pulled and of the square in which a point is looked for, in pixels of an
            image of 512. By default the paper's 3 and 12; where the map has less than 128 pixels, as many of its
            pixels as those are of 128.
        mask_weight: of the difference of what shall stay. reg: of the distance of the styles from the first ones.
        lr: of Adam. rows: so many first rows of ws move, or all if there are fewer: those up to 32 pixels.
        stop_px: how near, in pixels of the image, all points must be; by default 2, or R / 256 where that is more.

    Raises:
        ValueError: points, a mask, styles or numbers that the image cannot have.
    """

    def __init__(
        self,
        features: Features,
        ws: Tensor,
        *,
        handles: Points,
        targets: Points,
        mask: Tensor | None = None,
        r1: float | None = None,
        r2: float | None = None,
        mask_weight: float = 20.0,
        reg: float = 0.0,
        lr: float = 0.001,
        rows: int = 6,
        stop_px: float | None = None,
    ) -> None:
        if ws.dim() != 3 or len(ws) != 1:
            raise ValueError(f"ws of shape {list(ws.shape)}: one image is dragged, whose styles are [1, L, W]")
        if rows < 1:
            raise ValueError(f"rows is {rows}: give 1 or more of the {ws.shape[1]} rows of ws")
        if stop_px is not None and not stop_px >= ACTIVE_PX:
            raise ValueError(f"stop_px is {stop_px}: a point within 1 pixel is not pulled any more, so give 1 or more")
        self.features, self.first_ws, self.rows = features, ws.detach().clone(), rows
        self.mask_weight, self.reg, self.count = mask_weight, reg, 0
        with torch.no_grad():
            image, side, self.first = self._look(self.first_ws)
        self.resolution = image.shape[-1]
        self.stop_px = max(STOP_PX, STOP_PX * self.resolution / PUBLISHED_PX) if stop_px is None else stop_px
        self.handles = points_in(handles, "handle", self.resolution).round().long()
        self.targets = points_in(targets, "target", self.resolution)
        if len(self.handles) != len(self.targets) or not len(self.handles):
            raise ValueError(f"{len(self.handles)} handles and {len(self.targets)} targets: give a target to each")
        self.r1_px = radius_px("r1", r1, R1, side=side, resolution=self.resolution)
        self.r2_px = radius_px("r2", r2, R2, side=side, resolution=self.resolution)
        self.mask = None if mask is None else usable(mask, self.first)
        self.wanted = [self.first[0, :, y, x] for x, y in self.handles.tolist()]  # of step 0, and never anew
        self.w = self.first_ws[:, :rows].clone().requires_grad_(True)
        self.optimizer = torch.optim.Adam([self.w], lr=lr)

    @property
    def ws(self) -> Tensor:
        return self._all_rows().detach()

    def step(self, *, move: bool = True) -> DragStep:
        """Finds the points in the image of `ws`, then moves `ws` once, unless they have arrived.

        move: False only looks. ValueError where the loss is not finite any more.
        """
        with torch.enable_grad():
            ws = self._all_rows()
            image, _, seen = self._look(ws)
            found = [self._track(seen.detach(), *pair) for pair in zip(self.handles.tolist(), self.wanted, strict=True)]
            self.handles = torch.tensor(found)
            distances = (self.targets - self.handles).norm(dim=1)
            arrived = bool((distances <= self.stop_px).all())
            loss = self._loss(ws, seen, distances)
            (gradient,) = torch.autograd.grad(loss, self.w)
        if not math.isfinite(loss.item()):
            raise ValueError(f"step {self.count} has the loss {loss.item()}: lower lr, which is {self._lr}")
        if move and not arrived:
            self.w.grad = gradient
            self.optimizer.step()
        self.count += 1
        return DragStep(self.count - 1, self.handles, distances, loss.item(), arrived, image.detach())

    # ---- the parts of a step -----------------------------------------------------------------------------------------

    @property
    def _lr(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    def _all_rows(self) -> Tensor:
        return torch.cat([self.w, self.first_ws[:, self.rows :]], 1)

    def _look(self, ws: Tensor) -> tuple[Tensor, int, Tensor]:
        """(image, side of the map, the map at the image's size [1, D, R, R])."""
        image, features = self.features(ws)
        return image, features.shape[-1], F.interpolate(features.float(), image.shape[-2:], mode="bilinear")

    def _track(self, seen: Tensor, handle: Sequence[int], wanted: Tensor) -> list[int]:
        """The place near the handle whose features are nearest to the first ones (Sec. 3.3)."""
        x, y = handle
        left, top, r = max(x - self.r2_px, 0), max(y - self.r2_px, 0), self.r2_px
        square = seen[0, :, top : y + r + 1, left : x + r + 1]
        row, column = divmod(int((square - wanted[:, None, None]).norm(dim=0).argmin()), square.shape[-1])
        return [left + column, top + row]

    def _loss(self, ws: Tensor, seen: Tensor, distances: Tensor) -> Tensor:
        """Motion supervision and mask (Eq. 1)."""
        loss = self.reg * F.l1_loss(ws, self.first_ws)
        for handle, target, distance in zip(self.handles, self.targets, distances, strict=True):
            if distance > ACTIVE_PX:
                loss = loss + self._motion(seen, handle, (target - handle) / (distance + 1e-7))
        if self.mask is not None:
            loss = loss + self.mask_weight * F.l1_loss(seen * self.mask, self.first * self.mask)
        return loss

    def _motion(self, seen: Tensor, handle: Tensor, direction: Tensor) -> Tensor:
        """How far the patch of a handle is from being what is now one pixel behind it.

        The paper's patch is of whole pixels; the official code measures from places R / (R - 1) apart. We follow it.
        """
        r = self.resolution
        places = torch.linspace(0, r, r)
        away = (places[:, None] - handle[1]).square() + (places - handle[0]).square()
        rows, columns = torch.where(away.sqrt() < self.r1_px)
        grid = (torch.stack([columns, rows], 1) + direction) / (r - 1) * 2 - 1
        ahead = F.grid_sample(seen, grid[None, None].to(seen), align_corners=True)[0, :, 0]
        return F.l1_loss(ahead, seen[0, :, rows, columns].detach())


# ---- of a model ------------------------------------------------------------------------------------------------------


def begin_drag(
    model: HasLayers,
    ws: Tensor,
    *,
    layer: str | None = None,
    ema: bool = True,
    draw: Callable[[Tensor], Tensor] | None = None,
    **settings: Any,
) -> Drag:
    """A `Drag` of a styled generator's image, to be gone on with step by step; settings as there.

    ws [1, L, W], as of `styles_of(model, [seed], psi=0.7)`. layer: one of `feature_layers`; see `layer_of`. draw: how
    the model makes an image of ws, where something else of it has been edited before:
    `lambda ws: replace(edited, ws=ws).image()`.

    Raises:
        ValueError: a model without styles, or a mask that keeps all; see `Drag`.
    """
    require(model, HasLayers, "dragging points")
    mask = settings.get("mask")
    if mask is not None and (mask >= 1).all():
        raise ValueError("the mask keeps every pixel, so that nothing could move: it is 0 where the image may change")
    features = features_of(model, layer or layer_of(model, ws, ema=ema), ema=ema, draw=draw)
    return Drag(features, ws.to(model.device), **settings)


def drag(
    model: HasLayers,
    ws: Tensor,
    *,
    handles: Points,
    targets: Points,
    mask: Tensor | None = None,
    layer: str | None = None,
    ema: bool = True,
    draw: Callable[[Tensor], Tensor] | None = None,
    max_steps: int = 300,
    frames: bool = True,
    on_step: Callable[[DragStep], None] | None = None,
    **numbers: float | None,
) -> Dragged:
    """Where points `handles` [P, 2] of the image of `ws` [1, L, W] have come on their way to `targets` [P, 2].

    Points are (x, y) in pixels, x to the right and y down. Ends when all are within `stop_px` of their targets, or
    after `max_steps`. Deterministic on the CPU.

    Args:
        mask: [R, R], 1 where the image shall stay, 0 where it may change.
        layer, ema, draw: see `begin_drag`. frames: keeps the film.
        on_step: is told of each step when it is done, the last look at what has come of it included.
        **numbers: r1, r2, mask_weight, reg, lr, rows and stop_px of `Drag`.

    Raises:
        ValueError: see `Drag` and `begin_drag`; or max_steps is below 1.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps is {max_steps}: give 1 or more")
    settings = {"handles": handles, "targets": targets, "mask": mask, **numbers}
    going = begin_drag(model, ws, layer=layer, ema=ema, draw=draw, **settings)
    steps, film = list[DragStep](), list[Tensor]()
    while not steps or not (steps[-1].arrived or len(steps) > max_steps):
        steps.append(going.step(move=len(steps) < max_steps))
        if frames:
            film.append(drawn(steps[-1].image, steps[-1].handles, going.targets))
        if on_step is not None:
            on_step(steps[-1])
    reason = "arrived" if steps[-1].arrived else "steps"
    pictures = torch.stack(film) if film else torch.zeros(0, 3, FRAME_PX, FRAME_PX, dtype=torch.uint8)
    return Dragged(going.ws.cpu(), going.handles, steps, pictures, reason)


def features_of(
    model: HasLayers, layer: str, *, ema: bool = True, draw: Callable[[Tensor], Tensor] | None = None
) -> Features:
    """What a `Drag` takes, with the map of this layer, without what it has around the image; draw: see `begin_drag`.

    ValueError for a layer that there is not.
    """
    check_layers([layer], model.feature_layers(ema=ema))
    margin = margins(model, ema=ema).get(layer, 0)

    def features(ws: Tensor) -> tuple[Tensor, Tensor]:
        with evaluating(model):
            image, maps = synthesize_features(model, ws, [layer], ema=ema, draw=draw)
        return image, F.pad(maps[layer], (-margin,) * 4)

    return features


@torch.no_grad()
def layer_of(model: HasLayers, ws: Tensor, *, ema: bool = True) -> str:
    """The last feature layer of at most 128 pixels, or half the image where that is less; the middle one for none.

    So it is the paper's for StyleGAN2 at 256 pixels and above: the sixth block, of 128 pixels.
    """
    around = margins(model, ema=ema)
    with evaluating(model):
        image, maps = synthesize_features(model, ws[:1].to(model.device), list(model.feature_layers(ema=ema)), ema=ema)
    most = min(MAP_PX, image.shape[-1] // 2)
    names = [name for name, one in maps.items() if one.shape[-1] - 2 * around.get(name, 0) <= most]
    return names[-1] if names else list(maps)[len(maps) // 2]


def margins(model: HasLayers, *, ema: bool) -> dict[str, int]:
    """By feature layer, how many pixels its map has on each side of the image; {} for none."""
    return model.feature_margins(ema=ema) if can(model, HasMargins) else {}


# ---- points, masks, pictures -----------------------------------------------------------------------------------------


def points_in(points: Points, what: str, resolution: int) -> Tensor:
    """float [P, 2]. ValueError for another shape, and for a point outside the image."""
    found = torch.as_tensor(points, dtype=torch.float32).cpu()
    if found.dim() != 2 or found.shape[1] != 2:
        raise ValueError(f"{what}s of shape {list(found.shape)}: give a list of points (x, y)")
    for x, y in found.tolist():
        if not (0 <= x <= resolution - 1 and 0 <= y <= resolution - 1):
            raise ValueError(
                f"{what} ({x:g}, {y:g}) is outside the image: x (to the right) and y (down) are from 0 to "
                f"{resolution - 1}"
            )
    return found


def radius_px(name: str, given: float | None, published: float, *, side: int, resolution: int) -> int:
    """In pixels of the image, of a map of `side` pixels; see `Drag`. ValueError for one below half a pixel."""
    radius = max(published, published * MAP_PX / side) if given is None else given
    pixels = round(radius * resolution / PUBLISHED_PX)
    if pixels < 1:
        raise ValueError(
            f"{name} {radius:g} is {radius * resolution / PUBLISHED_PX:.2g} pixels at {resolution}: it is in pixels of "
            f"an image of {PUBLISHED_PX}, so give at least {PUBLISHED_PX / resolution:g}, or leave it out"
        )
    return pixels


def usable(mask: Tensor, like: Tensor) -> Tensor | None:
    """The mask as floats; None where it does not tell two regions apart. ValueError for another size or range."""
    if mask.shape != like.shape[-2:]:
        raise ValueError(f"mask of shape {list(mask.shape)}: the image's is {list(like.shape[-2:])}")
    mask = mask.to(like)
    low, high = mask.aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"mask from {low:g} to {high:g}: 1 is where the image shall stay, 0 where it may change")
    return mask if low == 0 and high == 1 else None


def drawn(image: Tensor, handles: Tensor, targets: Tensor) -> Tensor:
    """[1, C, R, R] in [-1, 1] -> uint8 [3, S, S] on the CPU, with handles in red and lines to targets in blue.

    Of at least 256 pixels: smaller images are enlarged by an integer factor, larger ones averaged down to 256.
    """
    from PIL import ImageDraw

    side = image.shape[-1]
    image = F.interpolate(image, size=FRAME_PX, mode="area") if side > FRAME_PX else image
    factor = -(-FRAME_PX // image.shape[-1])
    large = as_channels(to_uint8(image).cpu(), 3)[0].repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    picture = to_pil(large)
    draw, scale, dot = ImageDraw.Draw(picture), large.shape[-1] / side, large.shape[-1] / 64
    pairs = [
        [tuple((c + 0.5) * scale for c in point) for point in pair]
        for pair in zip(handles.tolist(), targets.tolist(), strict=True)
    ]
    for handle, target in pairs:
        draw.line([handle, target], fill=LINE, width=round(dot / 2))
        for colour, (x, y) in ((TARGET, target), (HANDLE, handle)):
            draw.ellipse((x - dot, y - dot, x + dot, y + dot), fill=colour, outline=LINE)
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(*large.shape[1:], 3).permute(2, 0, 1)
