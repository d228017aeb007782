"""How pix2pixHD is trained, coarse to fine, and how its translations are manipulated (Wang et al., 2018, Sec. 3)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lit_gans.adversarial.capabilities import Input
from lit_gans.adversarial.checks import open_earlier
from lit_gans.adversarial.game import Game
from lit_gans.adversarial.optim import Schedule, lazy_adam
from lit_gans.base.grids import MAX_SIDE_PX
from lit_gans.base.images import to_uint8
from lit_gans.data import ImageData, TranslationData
from lit_gans.nn import Draws
from lit_gans.nn.mode import evaluating
from lit_gans.papers.pix2pix import Norm, as_rgb, check_direction, check_pairs, check_size
from lit_gans.papers.pix2pixhd.clusters import Clusters, class_of
from lit_gans.papers.pix2pixhd.instances import (
    edges,
    instance_means,
    label_colours,
    label_ids,
    number_instances,
    one_hot,
    restyle,
)
from lit_gans.papers.pix2pixhd.losses import feature_matching, least_squares, predictions
from lit_gans.papers.pix2pixhd.networks import (
    Encoder,
    Features,
    GlobalGenerator,
    LocalEnhancer,
    MultiscaleDiscriminator,
    halved,
    init_weights,
    to_image,
)

if TYPE_CHECKING:
    from lit_gans.data import TranslationData

Phase = Literal["global", "enhancer", "joint"]


class Pix2PixHD(Game):
    """Sec. 3: least squares at several scales, feature matching, a perceptual loss; coarse to fine.

    Batches are {"label": int64 [N, H, W], "instance": int64 [N, H, W], "b": photographs}, or with num_labels 0
    {"a": images, "b": images}. Adam with lr 2e-4, constant and then falling to 0 (App. A).

    With enhancers, training has three phases on the image clock. "global": G1 alone, at its own size, with a last
    convolution of its own. "enhancer": the finest enhancer, all else frozen. "joint": everything. The official code
    does the first in a run of its own, which `start_from` takes over; a run with `global_kimg` does all three. Without
    enhancers all is "joint". An encoder learns in every phase, as in the official code.

    Args:
        num_labels: classes of the label maps, 35 in Cityscapes; 0 translates images of `in_channels` channels.
        instances: both players also see the instances' edges (Sec. 3.3); without, features are of classes.
        width: of the generator at full size: 64, or 32 with one enhancer.
        scales: of the discriminator: 3 in the paper, 2 in the official code up to 1024 pixels.
        features: numbers per instance that the encoder gives the generator, 3 in the paper (Sec. 3.4); 0 for none.
        num_clusters: of each class's features, for manipulation; found when training ends, see `cluster_features`.
        matching_weight: lambda of Eq. 5.
        perceptual: adds its value for (fake, real) to the generator's loss, such as `PerceptualLoss`, which needs
            VGG19's weights. Without them, training goes on without this loss, and says so unless the weight is 0.
        global_kimg, fix_global_kimg: how long the phases "global" and "enhancer" last.
        start_from: a run folder or .ckpt of this class, with fewer enhancers or none; read before the first batch only.
        decay_from_kimg: where the linear schedule starts to fall; None is half of total_kimg. The official code steps
            once per epoch, on the same line.
        repair_gradients: see `Game`. Off, as in the official code: without penalties a gradient that is not finite
            comes from a loss that is not, which Health reports.
        **game: micro_batches, seed, ... of `Game`.

    Raises:
        ValueError: arguments that contradict each other.
    """

    directions: tuple[str, ...] = ("ab",)
    only_in_training = ("perceptual",)

    def __init__(
        self,
        *,
        num_labels: int = 35,
        instances: bool = True,
        in_channels: int = 3,
        out_channels: int = 3,
        width: int = 64,
        downsamplings: int = 4,
        blocks: int = 9,
        enhancers: int = 0,
        local_blocks: int = 3,
        discriminator_width: int = 64,
        discriminator_layers: int = 3,
        scales: int = 3,
        norm: Norm = "instance",
        features: int = 0,
        encoder_width: int = 16,
        encoder_downsamplings: int = 4,
        num_clusters: int = 10,
        matching_weight: float = 10.0,
        perceptual_weight: float = 10.0,
        perceptual: nn.Module | None = None,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        repair_gradients: bool = False,
        global_kimg: float = 0.0,
        fix_global_kimg: float = 0.0,
        start_from: str | None = None,
        total_kimg: float = 595.0,
        schedule: Schedule = "linear",
        decay_from_kimg: float | None = None,
        **game: Any,
    ) -> None:
        decay = total_kimg / 2 if decay_from_kimg is None else decay_from_kimg
        plan = {"total_kimg": total_kimg, "schedule": schedule, "decay_from_kimg": decay}
        super().__init__(repair_gradients=repair_gradients, **plan, **game)
        self.save_hyperparameters(ignore=["perceptual"])  # translating needs none; training takes it from the config
        if not num_labels and (instances or features):
            raise ValueError(
                "instances and features belong to label maps: num_labels=0 needs instances=false, features=0"
            )
        if not enhancers and (global_kimg or fix_global_kimg or start_from):
            raise ValueError("global_kimg, fix_global_kimg and start_from are about enhancers: set enhancers=1")
        if start_from and global_kimg:
            raise ValueError("start_from brings a trained global generator: set global_kimg=0, or leave start_from out")
        if enhancers > 1 and global_kimg:
            raise ValueError(f"{enhancers} enhancers are trained one by one: give start_from a run with one less")
        seen = num_labels + instances if num_labels else in_channels
        size = {"in_channels": seen + features, "out_channels": out_channels, "width": width, "norm": norm}
        size |= {"downsamplings": downsamplings, "blocks": blocks}
        if enhancers:
            self.generator = LocalEnhancer(**size, enhancers=enhancers, local_blocks=local_blocks)
        else:
            self.generator = GlobalGenerator(**size)
        judge = {"width": discriminator_width, "layers": discriminator_layers, "scales": scales, "norm": norm}
        self.discriminator = MultiscaleDiscriminator(channels=seen + out_channels, **judge)
        self.global_end = nn.Sequential(*to_image(width * 2**enhancers, out_channels)) if global_kimg else None
        if self.global_end is not None:
            init_weights(self.global_end)
        self.encoder, self.clusters = None, None
        if features:
            size = {"width": encoder_width, "downsamplings": encoder_downsamplings, "norm": norm}
            self.encoder = Encoder(channels=out_channels, features=features, **size)
            self.clusters = Clusters(num_labels=num_labels, num_clusters=num_clusters, features=features)
        self.perceptual = None if perceptual is None else perceptual.requires_grad_(False)
        self.num_labels, self.instances, self.enhancers = num_labels, instances, enhancers
        self.matching_weight, self.perceptual_weight = matching_weight, perceptual_weight
        self.lr, self.betas, self.start_from = lr, betas, start_from
        self.global_kimg, self.fix_global_kimg = global_kimg, fix_global_kimg
        self._last_phase: Phase | None = None  # of the batch before

    @classmethod
    def from_generator(
        cls, generator: GlobalGenerator | LocalEnhancer, *, num_labels: int = 0, instances: bool = False
    ) -> Pix2PixHD:
        """A generator alone, such as a released one, for translating; the discriminator is a tiny one.

        Raises:
            ValueError: `encoded_channels` does, or an encoder's features are among what it takes.
        """
        if features := encoded_channels(generator, num_labels=num_labels, instances=instances):
            raise ValueError(
                f"{features} of the {generator.channels[0]} channels that the generator takes are an encoder's "
                "features, of which no file of the release has clusters: it does not translate alone"
            )
        taken, made = generator.channels
        given = {"num_labels": num_labels, "instances": instances, "in_channels": taken, "out_channels": made}
        small = {"width": 1, "downsamplings": 1, "blocks": 0, "scales": 1, "perceptual_weight": 0.0}
        game = cls(**given, **small, discriminator_width=1, discriminator_layers=1)
        game.generator = generator
        return game

    @property
    def stride(self) -> int:
        """Sides of images must be multiples of it, in pixels."""
        return self.generator.stride

    def takes(self, direction: str) -> Input:
        return Input(1, labels=self.num_labels) if self.num_labels else Input(self.hparams["in_channels"])

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        self.enter_phase(opt_g)
        fakes: list[Tensor] = []
        with self.updating(opt_g):  # before the discriminator, as in the official code
            for inputs, real, features in self.parts(batch):
                fake = self.draw(inputs, features)
                fakes.append(fake.detach())
                with torch.no_grad():
                    real_features = self.judge(inputs, real)
                fake_features = self.judge(inputs, fake)
                adversarial, matching = least_squares(fake_features, 1), feature_matching(fake_features, real_features)
                g_loss = adversarial + self.matching_weight * matching  # Eq. 5
                if self.perceptual is not None and self.perceptual_weight:
                    perceptual = self.perceptual(fake, real)
                    g_loss = g_loss + self.perceptual_weight * perceptual  # Sec. 3.5
                    self.report(perceptual=perceptual)
                self.accumulate(g_loss)
                self.report(loss_g=g_loss, adversarial=adversarial, matching=matching)
        with self.updating(opt_d):
            for fake, (inputs, real, _) in zip(fakes, self.parts(batch, encode=False), strict=True):
                fake_features, real_features = self.judge(inputs, fake), self.judge(inputs, real)
                d_loss = 0.5 * (least_squares(fake_features, 0) + least_squares(real_features, 1))  # Eq. 3, halved
                self.accumulate(d_loss)
                self.report_discriminator(d_loss, predictions(real_features), predictions(fake_features))
        if self.encoder is not None and self.is_last(batch):
            self.cluster_training_set()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One for the generator and the encoder, one for the discriminator."""
        sides = [p for m in self.makers() for p in m.parameters()], self.discriminator.parameters()
        return [lazy_adam(side, lr=self.lr, betas=self.betas, fused=self.fused) for side in sides]

    def discriminators(self) -> list[nn.Module]:
        return list(self.discriminator.scales)

    def networks(self) -> list[nn.Module]:
        return [self.generator, self.discriminator]

    def makers(self) -> list[nn.Module]:
        """The generator's side of the game."""
        return [m for m in (self.generator, self.global_end, self.encoder) if m is not None]

    # ---- the parts of a step -----------------------------------------------------------------------------------------

    @property
    def sources(self) -> tuple[str, ...]:
        """What of a batch is translated; the last one tells instances apart."""
        if not self.num_labels:
            return ("a",)
        return ("label", "instance") if self.instances else ("label",)

    def parts(self, batch: dict[str, Tensor], *, encode: bool = True) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Inputs of both players, photographs, and instances' features of each micro-batch, at this phase's size."""
        for *maps, photo in self.split(*(batch[name] for name in self.sources), batch["b"]):
            features = self.at_size(self.encoder(photo, maps[-1])) if encode and self.encoder is not None else None
            yield self.at_size(self.inputs(*maps)), self.at_size(photo), features

    def inputs(self, source: Tensor, instance: Tensor | None = None) -> Tensor:
        """What both players see: images as they are, or classes [N, H, W] one-hot and edges: [N, L + 1, H, W]."""
        if not self.num_labels:
            return source
        hot = one_hot(source, self.num_labels)
        return torch.cat([hot, edges(instance)], 1) if self.instances else hot

    def at_size(self, x: Tensor) -> Tensor:
        """Full-size maps at the size that this phase works at: in the first, G1's."""
        for _ in range(self.enhancers if self.phase == "global" else 0):
            x = halved(x)
        return x

    def draw(self, inputs: Tensor, features: Tensor | None) -> Tensor:
        """Maps [N, A, H, W] and [N, F, H, W] at the size of this phase -> images."""
        x = inputs if features is None else torch.cat([inputs, features], 1)
        return self.global_end(self.generator.layers(x)) if self.phase == "global" else self.generator(x)

    def judge(self, inputs: Tensor, images: Tensor) -> Features:
        return self.discriminator(torch.cat([inputs, images], 1))

    # ---- phases: coarse to fine (Sec. 3.2) ---------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """Of the batch that comes next, or is being trained on."""
        if not self.enhancers or self.kimg >= self.global_kimg + self.fix_global_kimg:
            return "joint"
        return "global" if self.kimg < self.global_kimg else "enhancer"

    def enter_phase(self, opt_g: torch.optim.Optimizer) -> None:
        """At a phase's first batch: freezes what it does not train, and gives the generator a new Adam, as the code."""
        if self.phase != self._last_phase:
            opt_g.state.clear()
            self._freeze()
            self._last_phase = self.phase

    def _freeze(self) -> None:
        """What this phase trains takes gradients; the encoder always does."""
        if self.phase == "global":
            trained = [self.generator.layers, self.global_end]
        else:
            trained = [self.generator.finest if self.phase == "enhancer" else self.generator]
        for network in self.makers():
            network.requires_grad_(network is self.encoder)
        for network in trained:
            network.requires_grad_(True)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.start_from and self.images_seen == 0:  # by now a resumed run has its weights and its clock back
            self.take_over(self.start_from)
        self._freeze()

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage != "fit":
            return
        self.check_data(self.trainer.datamodule)
        if self.perceptual is None and self.perceptual_weight and self.trainer.is_global_zero:
            warnings.warn(
                "training without the perceptual loss: the paper has it; give perceptual the class "
                "lit_gans.papers.pix2pixhd.PerceptualLoss, or set perceptual_weight=0",
                stacklevel=2,
            )

    def check_data(self, data: Any) -> None:
        """The data must have what the networks were built for.

        Raises:
            ValueError: sizes, classes, channels or kinds of pictures differ.
        """
        channels = self.hparams["in_channels"], self.hparams["out_channels"]
        stride = max(self.stride, self.encoder.stride if self.encoder is not None else 1)
        if not isinstance(data, ImageData):
            return
        sides = data.dataset(data.train_split).sides if isinstance(data, TranslationData) else ("single images",)
        if not {*self.sources, "b"} <= {*sides}:
            raise ValueError(
                f"the model learns from {', '.join(self.sources)}, b, and the data have {', '.join(sides)}: set "
                "num_labels=0 and instances=false for pairs of images, instances=false for label maps without instances"
            )
        if not self.num_labels:
            return check_pairs(self, data, channels=channels, stride=stride, least_px=2 * stride)
        for name, value in {"num_labels": data.num_labels, "out_channels": data.b_channels}.items():
            if self.hparams[name] != value:
                raise ValueError(f"the model has {name} {self.hparams[name]}, the data need {name} {value}")
        if any(side % stride or side < 2 * stride for side in data.size):
            raise ValueError(
                f"the data's pictures of {data.resolution}x{data.height} px do not fit the networks, which halve their "
                f"sides to 2 pixels or more: use multiples of {stride} from {2 * stride}, or fewer downsamplings"
            )

    def take_over(self, run: str | Path) -> None:
        """Weights of a run with fewer enhancers: of every network what has our names and shapes.

        Raises:
            FileNotFoundError, ValueError: no such run, it is of another class, or its G1 is not ours.
        """
        (path, checkpoint), ours = open_earlier(self, run), self.state_dict()
        saved = {k: t for k, t in checkpoint["state_dict"].items() if k in ours and t.shape == ours[k].shape}
        missing = [k for k in ours if k.startswith("generator.layers.") and k not in saved]
        if missing:
            raise ValueError(
                f"the global generator in start_from {path} is not this one's in {len(missing)} tensors "
                f"({', '.join(missing[:3])}): width must be half of that run's, downsamplings and blocks the same"
            )
        self.load_state_dict(saved, strict=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["lit_gans"]["phase"] = self._last_phase

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._last_phase = checkpoint["lit_gans"].get("phase")  # not in converted weights

    # ---- translating and manipulating (Sec. 3.4) ---------------------------------------------------------------------

    @torch.no_grad()
    def translate(
        self,
        images: Tensor,
        *,
        direction: str = "ab",
        draws: Draws | None = None,
        instance: Tensor | None = None,
        features: Tensor | None = None,
    ) -> Tensor:
        """images [N, C, H, W] in [-1, 1] -> [N, B, H, W] in [-1, 1], each from its image alone.

        With label maps, `images` are such maps as files of them are read: grey, where k / 127.5 - 1 is class k.

        Args:
            draws: choose each instance's features among its class's clusters; None takes the largest cluster. Before
                there are clusters, all features are 0, the middle of their range, and a warning says so.
            instance: ids int64 [N, H, W]; None takes every class for one instance.
            features: [N, F, H, W] instead of those of clusters; from `encode` or `restyle`.

        Raises:
            ValueError: sizes, classes or direction do not fit.
        """
        check_direction(direction, self.directions)
        check_size(images, self.stride)
        if not self.num_labels:
            return self.render(images)
        label = label_ids(images, self.num_labels)
        instance = label if instance is None else instance
        if self.encoder is not None and features is None:
            if not torch.compiler.is_exporting() and not self.clusters.counts.any():
                warnings.warn(
                    "no clusters to choose styles from: train to the end, or call cluster_features", stacklevel=2
                )
            features = self.clusters.sample(label, instance, draws=draws)
        return self.render(self.inputs(label, instance), features)

    def render(self, inputs: Tensor, features: Tensor | None = None) -> Tensor:
        """`draw` in evaluation mode at full size, enlarged where this phase works at another."""
        with evaluating(self.generator):
            found = self.draw(self.at_size(inputs), None if features is None else self.at_size(features))
        size = inputs.shape[-2:]
        return found if found.shape[-2:] == size else interpolate(found, size, mode="bilinear", align_corners=False)

    @torch.no_grad()
    def encode(self, photo: Tensor, instance: Tensor) -> Tensor:
        """Photographs [N, C, H, W] in [-1, 1], ids int64 [N, H, W] -> features [N, F, H, W] for `translate`.

        Raises:
            ValueError: the model has no encoder.
        """
        if self.encoder is None:
            raise ValueError("this model has no instance features (features=0): train one with features=3")
        with evaluating(self.encoder):
            return self.encoder(photo, instance)

    def manipulate(
        self, images: Tensor, *, instance: Tensor, features: Tensor, chosen: int, style: Tensor, keep_rest: bool = True
    ) -> Tensor:
        """`translate` with another style [F] of the instance `chosen` (Sec. 3.4), such as `clusters.centres[class, k]`.

        keep_rest: all other pixels are those of the translation without the change. The networks' norms and fields of
        view reach over the whole image, so that False, which is the paper's way, may change them a little.
        """
        changed = restyle(features, instance, chosen=chosen, style=style)
        after = self.translate(images, instance=instance, features=changed)
        if not keep_rest:
            return after
        before = self.translate(images, instance=instance, features=features)
        return torch.where((instance == chosen)[:, None], after, before)

    def cluster_training_set(self) -> None:
        """`cluster_features` of the training pictures, whole, in the last batch; a warning where none can be found."""
        data = self.trainer.datamodule
        batches = data.batches(data.train_split, 4)
        try:
            self.cluster_features(
                data.on_after_batch_transfer({k: x.to(self.device) for k, x in whole.items()}, 0) for whole in batches
            )
        except ValueError as error:
            warnings.warn(f"the features have no clusters to choose styles from: {error}", stacklevel=2)

    def cluster_features(
        self, batches: Iterable[dict[str, Tensor]], *, seed: int = 0, least_share: float = 1 / 64
    ) -> None:
        """Fills `clusters` by k-means over each class's instances (Sec. 3.4).

        Args:
            batches: as `training_step` is given them, of a whole data set.
            least_share: smaller instances, as shares of an image's area, do not count; 1 / 64 in the official code.

        Raises:
            ValueError: the model has no encoder, or no instance is large enough.
        """
        features, classes = [], []
        for batch in batches:
            photo, label, instance = (batch[k].to(self.device) for k in ("b", "label", self.sources[-1]))
            numbers, _ = number_instances(instance)
            large = torch.bincount(numbers.flatten()) > least_share * label[0].numel()
            features.append(instance_means(self.encode(photo, instance), numbers).T[large].cpu())  # [F, M] -> [M, F]
            classes.append(class_of(label, numbers)[large].cpu())
        if not sum(map(len, features)):
            raise ValueError(f"no instance covers more than {least_share:.3g} of its image: lower least_share")
        self.clusters.fit(torch.cat(features), torch.cat(classes), seed=seed)

    # ---- pictures ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def preview(self, data: TranslationData, *, rows: int, columns: int, psi: float = 1.0) -> tuple[Tensor, int]:
        """(uint8 [N, 3, H, W], images per row): input | output | target of `preview_split`, as many as fit."""
        across = max(min(columns, MAX_SIDE_PX // data.resolution) // 3, 1)
        count = across * max(min(rows, MAX_SIDE_PX // data.height), 1)
        first = torch.arange(min(count, len(data.dataset(data.preview_split))))
        shown = []
        for whole in data.batches(data.preview_split, 4, indices=first):
            batch = data.on_after_batch_transfer({name: x.to(self.device) for name, x in whole.items()}, 0)
            shown.append(torch.stack(self._views(batch), 1).flatten(0, 1).cpu())  # [N, 3, 3, H, W] -> [3 N, 3, H, W]
        return torch.cat(shown), min(3 * across, 3 * len(first))

    def _views(self, batch: dict[str, Tensor]) -> list[Tensor]:
        """Three uint8 [N, 3, H, W]. With the photographs' own features, which need no clusters."""
        maps = [batch[name] for name in self.sources]
        features = None if self.encoder is None else self.encode(batch["b"], maps[-1])
        source = label_colours(maps[0]) if self.num_labels else to_uint8(as_rgb(maps[0]))
        return [source, *(to_uint8(as_rgb(x)) for x in (self.render(self.inputs(*maps), features), batch["b"]))]


def encoded_channels(
    generator: GlobalGenerator | LocalEnhancer, *, num_labels: int = 0, instances: bool = False
) -> int:
    """How many of a generator's input channels are an encoder's features: neither labels nor instances' edges.

    Without labels it takes pictures. ValueError where the channels are not so many, or are those of no picture.
    """
    taken, said = generator.channels[0], num_labels + instances
    if not said and taken not in (1, 3):
        raise ValueError(
            f"its generator takes {taken} channels, and pictures have 1 or 3: say how many labels its maps have, and "
            f"whether it takes edges of instances, as in lit-gans convert --num_labels {taken - 1} --instances"
        )
    if said and (num_labels < 1 or taken < said):
        raise ValueError(
            f"its generator takes {taken} channels, and {num_labels} labels{' and the edges' * instances} are {said}: "
            "num_labels is from 1 on, and instances=True takes one channel more"
        )
    return taken - said if said else 0
