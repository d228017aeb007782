"""How StyleGAN-XL is trained (Sauer et al., 2022, Sec. 3): a stem, and then one head after the other on it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from lit_gans.adversarial import GAN, lazy_adam
from lit_gans.adversarial.checks import open_earlier, say
from lit_gans.adversarial.losses import hinge
from lit_gans.adversarial.penalties import path_length
from lit_gans.augment.diffaug import POLICIES
from lit_gans.base.checkpoints import read_weights, under
from lit_gans.base.processes import mean_over_processes, of_all_processes
from lit_gans.base.random import derive_seed
from lit_gans.data.base import ImageData
from lit_gans.metrics.sources import StyleLayer
from lit_gans.nn.mode import evaluating
from lit_gans.papers.projected_gan.features import PUBLISHED_PX, FeatureNetwork
from lit_gans.papers.stylegan2.networks import Half, check_choice
from lit_gans.papers.stylegan3.training import Configuration, blurred
from lit_gans.papers.stylegan_xl.discriminators import LEARNED, Classifier, Discriminator, class_features
from lit_gans.papers.stylegan_xl.networks import ClassEmbedding, Generator

FROM_FEATURES = "features"  # what class_embedding is then made of


class StyleGANXL(GAN):
    """Sec. 3: hinge loss of projected discriminators; path lengths for the stem, a classifier's guidance for heads.

    Every stage is a run. The first trains a stem of 16 pixels; each further one `start_from` the run before and trains
    one more head, and all below it, the mapping too, stays as its averages had become. The feature networks are not
    saved: training reads their weights, and sampling needs none.

    Args:
        resolution: of the images: of the last head, or the stem.
        stem_px, num_layers, num_critical, margin_px, channel_base, channel_max: of the stem, see `SynthesisNetwork`.
            Small sets take 7 layers, half of channel_base and channel_max (official code).
        configuration: "T" or "R", see `StyleGAN3`; R has twice the feature maps.
        heads: [resolution, layers] of each, the last of which is trained; 7 layers each as published.
        start_from: a run folder or .ckpt of the stage before; read before the first batch only.
        embedding: rows and columns of the table of classes, see `ClassEmbedding`.
        class_embedding: a file with the table, .safetensors or .pth; "features" makes it of the data, as the published
            one of ImageNet: the mean over up to class_images of each class's images, evenly chosen, of what the first
            convolutional network of `features` sees in them; None draws it. Made before the first batch only.
        features: the discriminators' networks, of timm or torchvision: transformers see 224 pixels, others 224 or the
            resolution, if it is larger, or `features_px`, of each.
        features_weights: files of their weights; None takes those that are published, "random" draws them.
        features_fingerprints: of the weights; others are refused. Checkpoints keep those of the run.
        mixed_channels, num_heads, head_width, policy: see `Discriminator`.
        at_once: adversarial losses are this many times their mean. They are sums over what a GPU processes at once in
            the official code, of which its examples have 8; only beside other losses it matters.
        classifier: images [N, C, H, W] in [-1, 1] -> logits of their classes, such as `Classifier`; for guidance.
        guidance_weight: of its cross-entropy; 8 in the paper, from 32 pixels on.
        lr_g, lr_d, betas: of the players' Adam as published, before the correction for lazy regularisation.
        pl_weight, pl_interval, pl_from_kimg, pl_decay: of the path length, for a stem, in half of every so many
            batches; the weight is not multiplied by the interval, as in the official code.
        lazy_interval: the discriminator's Adam is corrected as for a penalty in every so many batches, of which there
            is none.
        blur_sigma, blur_kimg: images are blurred with so many pixels at first, linearly less until blur_kimg.
        **game: channels, num_classes, total_kimg, ... of `GAN`.
    """

    pl_mean: Tensor
    only_in_training = ("classifier",)

    def __init__(
        self,
        *,
        resolution: int = 16,
        channels: int = 3,
        num_classes: int = 0,
        stem_px: int = 16,
        configuration: Configuration = "T",
        heads: Sequence[Sequence[int]] = (),
        start_from: str | None = None,
        z_dim: int = 64,
        w_dim: int = 512,
        mapping_layers: int = 2,
        embedding: Sequence[int] = (1000, 320),
        class_embedding: str | None = None,
        class_images: int = 100,
        num_layers: int = 10,
        num_critical: int = 2,
        margin_px: int = 10,
        channel_base: int = 65536,
        channel_max: int = 1024,
        num_half_res: int = 0,
        half_dtype: Half = "float16",
        features: Sequence[str] = ("deit_base_distilled_patch16_224", "tf_efficientnet_lite0"),
        features_weights: Sequence[str | None] | None = None,
        features_fingerprints: Sequence[str | None] | None = None,
        features_px: Sequence[int] | None = None,
        mixed_channels: int = 64,
        num_heads: int = 4,
        head_width: int | None = None,
        policy: Sequence[str] = POLICIES,
        at_once: int = 8,
        classifier: nn.Module | None = None,
        guidance_weight: float = 0.0,
        lr_g: float = 0.0025,
        lr_d: float = 0.002,
        betas: tuple[float, float] = (0.0, 0.99),
        pl_weight: float = 2.0,
        pl_interval: int = 4,
        pl_from_kimg: float = 1000.0,
        pl_decay: float = 0.01,
        lazy_interval: int = 16,
        blur_sigma: float = 2.0,
        blur_kimg: float = 300.0,
        **game: Any,
    ) -> None:
        super().__init__(resolution=resolution, channels=channels, num_classes=num_classes, z_dim=z_dim, **game)
        self.save_hyperparameters(ignore=["classifier"])  # sampling needs none; training takes it from the config
        check_choice("configuration", configuration, Configuration)
        heads = [list(head) for head in heads]
        if resolution != (heads[-1][0] if heads else stem_px):
            raise ValueError(f"resolution {resolution}, and the last of stem_px {stem_px}, heads {heads} is another")
        r = configuration == "R"
        self.generator = Generator(
            resolution=stem_px,
            heads=heads,
            channels=channels,
            z_dim=z_dim,
            c_dim=num_classes,
            w_dim=w_dim,
            mapping_layers=mapping_layers,
            embedding=embedding,
            num_layers=num_layers,
            num_critical=num_critical,
            margin_px=margin_px,
            channel_base=channel_base * (2 if r else 1),
            channel_max=channel_max * (2 if r else 1),
            conv_kernel=1 if r else 3,
            radial_filters=r,
            num_half_res=num_half_res,
            half_dtype=half_dtype,
        )
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False)
        trained = [*self.generator.trained()]
        self.generator.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        nothing = [None] * len(features)
        self.discriminator = Discriminator(
            features,
            weights=features_weights or nothing,
            fingerprints=features_fingerprints or nothing,
            px=features_px or [seen_px(name, resolution) for name in features],
            num_classes=num_classes,
            embedding=embedding,
            mixed_channels=mixed_channels,
            num_heads=num_heads,
            head_width=head_width,
            policy=policy,
            seed=derive_seed(self.seed, "projection"),
        )
        self.classifier = None if classifier is None else classifier.requires_grad_(False)
        self.register_buffer("pl_mean", torch.zeros(()))
        self.heads, self.start_from = heads, start_from
        self.class_embedding, self.class_images = class_embedding, class_images
        if class_embedding == FROM_FEATURES and self.pooled().channels[-1] != embedding[1]:
            network = self.pooled()
            raise ValueError(
                f"class_embedding {FROM_FEATURES}: {network.name} gives rows of {network.channels[-1]} numbers, and "
                f"embedding is {list(embedding)}: set embedding=[{embedding[0]}, {network.channels[-1]}]"
            )
        self.at_once, self.guidance_weight = at_once, guidance_weight
        self.lr_g, self.lr_d, self.betas, self.lazy_interval = lr_g, lr_d, betas, lazy_interval
        self.pl_weight, self.pl_interval, self.pl_decay = 0.0 if heads else pl_weight, pl_interval, pl_decay
        self.pl_from_kimg, self.blur_sigma, self.blur_kimg = pl_from_kimg, blur_sigma, blur_kimg

    @classmethod
    def from_generator(cls, generator: Generator) -> StyleGANXL:
        """A generator alone, such as a released one, for sampling, measuring and editing; nothing judges it."""
        mapping, signals = generator.mapping, generator.synthesis.signals
        px, size = signals[-1].size, {"z_dim": mapping.z_dim, "w_dim": mapping.w_avg.shape[-1]}
        size |= {"num_classes": mapping.c_dim, "channels": signals[-1].channels, "embedding": [mapping.c_dim, 1]}
        small = {"num_layers": 3, "channel_base": px, "channel_max": 1, "features": ()}
        gan = cls(resolution=px, stem_px=px, **size, **small)
        gan.generator = gan.generator_ema = generator
        return gan

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        # Fakes take the labels of the batch's reals: the same distribution as the official code's, drawn anew there.
        real, label, styles = batch["image"], batch["label"] if self.num_classes else None, list[Tensor]()
        with self.updating(opt_g):
            for z, c in self.split(self.latents(len(real), "g"), label):
                fake = self.generator.synthesis(self.generator.mapping(z, c))
                fake_logits = self.discriminator(self.seen(fake), c)
                _, g_loss = hinges(fake_logits, fake_logits)
                self.accumulate(self.at_once * g_loss + self.guidance(fake, c))
                self.report(loss_g=g_loss)
        if self.pl_weight and self.kimg >= self.pl_from_kimg and self.every(self.pl_interval):
            with self.updating(opt_g):
                lengths = list[Tensor]()
                for some, c in self.split(real, label):
                    self.accumulate(self.pl_weight * self.path_length_penalty(len(some), c, lengths))
            self.pl_mean.lerp_(mean_over_processes(torch.stack(lengths).mean(0)), self.pl_decay)
        with self.updating(opt_d):
            for x, z, c in self.split(real, self.latents(len(real), "d"), label):
                with torch.no_grad():
                    styles.append(self.generator.mapping(z, c))
                    fake = self.generator.synthesis(styles[-1])
                # One after the other: batch norms must see each alone.
                fake_logits, real_logits = self.discriminator(self.seen(fake), c), self.discriminator(self.seen(x), c)
                d_loss, _ = hinges(real_logits, fake_logits)
                self.accumulate(self.at_once * d_loss)
                self.report_discriminator(d_loss, torch.cat(real_logits, 1), torch.cat(fake_logits, 1))
        self.move_averages(torch.cat(styles)[:, 0].float(), label)

    # ---- the parts of a step -----------------------------------------------------------------------------------------

    def seen(self, images: Tensor) -> Tensor:
        """What the discriminators are shown of them at this moment of the clock."""
        return blurred(images, self.blur_sigma * max(1 - self.kimg / self.blur_kimg, 0.0))

    def guidance(self, fake: Tensor, c: Tensor | None) -> Tensor | float:
        """Cross-entropy of the fakes' classes (Sec. 3.4), of images that are neither blurred nor augmented."""
        if not self.guidance_weight or self.classifier is None or c is None:
            return 0.0
        loss = cross_entropy(self.classifier(fake), c)
        self.report(guidance=loss)
        return self.guidance_weight * loss

    def path_length_penalty(self, n: int, c: Tensor | None, lengths: list[Tensor]) -> Tensor:
        """Mean of (length - running mean)^2 over half of n latents; see StyleGAN2's."""
        n = max(n // 2, 1)
        noise = self.draws("pl-noise").normal(n, self.channels, self.resolution, self.resolution)
        ws = self.generator.mapping(self.latents(n, "pl"), None if c is None else c[:n])
        found = path_length(self.generator.synthesis.forward, ws, noise=noise)
        lengths.append(found.detach().mean())
        penalty = (found - self.pl_mean.lerp(found.mean(), self.pl_decay)).square().mean()
        self.report(path_length=penalty)
        return penalty

    @torch.no_grad()
    def move_averages(self, w: Tensor, label: Tensor | None) -> None:
        """w_avg, by w [N, W] of the discriminator's step, in the order of the global batch; magnitudes stay 1."""
        labels = None if label is None else of_all_processes(label)
        self.generator.mapping.track(of_all_processes(w), labels)

    # ---- stages ------------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self._compile:  # training calls the generator's two halves
            self.generator.mapping.compile(dynamic=False)
            self.generator.synthesis.compile(dynamic=False)
        if self.guidance_weight and isinstance(self.classifier, Classifier) and self.classifier.classes == LEARNED:
            self.teach(self.classifier, self.labelled("a classifier with classes=learned"))
        if self.images_seen:  # by now a resumed run has its weights and its clock back
            return
        if self.class_embedding is not None:
            self.start_embeddings(self.class_table(self.class_embedding))
        if self.heads:
            self.take_over(self.start_from)

    def take_over(self, run: str | Path | None) -> None:
        """All but the last head from the averaged generator of the stage before.

        Raises:
            FileNotFoundError, ValueError: there is no such run, or it is no stage that this one stands on.
        """
        if run is None:
            raise ValueError(f"heads {self.heads} stand on a stage trained before: give its run as start_from")
        path, checkpoint = open_earlier(self, run)
        below = [list(head) for head in checkpoint["hyper_parameters"]["heads"]]
        if below != self.heads[:-1]:
            raise ValueError(f"start_from {path} has heads {below}, and this stage stands on {self.heads[:-1]}")
        state = under(checkpoint["state_dict"], "generator_ema.")
        for network in (self.generator, self.generator_ema):
            network.take_stem(state)

    def class_table(self, source: str) -> Tensor:
        """Rows of classes [<= rows, columns], from a file, or the features of the data's images.

        FileNotFoundError, ValueError: there is no such file, or there are no such images.
        """
        if source == FROM_FEATURES:
            return self.table_of_features(self.labelled(f"class_embedding {FROM_FEATURES}"))
        tables, shape = list(read_weights(Path(source)).values()), tuple(self.hparams["embedding"])
        if [t.shape for t in tables] != [shape]:
            found = ", ".join(str(tuple(t.shape)) for t in tables)
            raise ValueError(
                f"class_embedding {source} holds tensors of {found}; give one of {shape}, or set embedding"
            )
        return tables[0]

    def labelled(self, what: str) -> ImageData:
        """The run's data, of whose classes `what` is made. ValueError for other data, and without classes."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, ImageData) or not self.num_classes:
            raise ValueError(
                f"{what} takes classes and data of lit_gans.data, and found {self.num_classes} classes and "
                f"{type(data).__name__}: leave it out"
            )
        return data

    def teach(self, classifier: Classifier, data: ImageData) -> None:
        """Begins anew at every start, from the same images."""
        most = self.class_images
        right = classifier.learn(data.dataset(data.train_split), classes=data.class_names, most=most)
        each = f"up to {most} images of each of {self.num_classes} classes, {100 * right:.1f} % right of those held out"
        say(self.trainer, f"classifier: {classifier.name}'s outputs on {each}")

    def table_of_features(self, data: ImageData) -> Tensor:
        """[num_classes, columns] of the data's images; ValueError for a class without any."""
        network, most = self.pooled(), self.class_images
        mean = f"the mean of {network.name}'s features over up to {most} images of each of {self.num_classes} classes"
        say(self.trainer, f"class embedding: {mean}")
        return class_features(network, data.dataset(data.train_split), classes=data.class_names, most=most)

    def pooled(self) -> FeatureNetwork:
        """The discriminators' first convolutional network. ValueError where none is."""
        for judge in self.discriminator.judges:
            if judge.features.maps is None:
                return judge.features
        raise ValueError(f"class_embedding {FROM_FEATURES} needs a convolutional network: none of features is one")

    @torch.no_grad()
    def start_embeddings(self, rows: Tensor) -> None:
        """All tables of classes from these rows, the first of theirs."""
        for module in self.modules():
            if isinstance(module, ClassEmbedding):
                module.weight[: len(rows)] = rows

    # ---- what Lightning calls ----------------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        # The correction stays where there is no penalty, as in the official code.
        judges = self.discriminator.parameters()
        players = ((self.generator.trained(), self.lr_g, self.pl_interval), (judges, self.lr_d, self.lazy_interval))
        return [lazy_adam(p, lr=lr, betas=self.betas, interval=k, fused=self.fused) for p, lr, k in players]

    def discriminators(self) -> list[nn.Module]:
        """The heads; what they look through is frozen as it is."""
        return [head for judge in self.discriminator.judges for head in judge.heads.heads]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage != "fit":
            return
        networks = [judge.features for judge in self.discriminator.judges]
        if not networks:
            raise ValueError("nothing judges the images: give features, the names of one network or two")
        if self.guidance_weight and (self.classifier is None or not self.num_classes):
            raise ValueError("guidance needs classes and a classifier of them: set guidance_weight=0, or give both")
        for network in networks:
            network.load()
            say(self.trainer, network.told())
        if isinstance(self.classifier, Classifier):
            self.classifier.check(self.num_classes)
            self.classifier.load()
        self.hparams["features_fingerprints"] = [network.fingerprint for network in networks]

    def frozen_networks(self) -> list[dict[str, object]]:
        classifier = [self.classifier.stamp()] if isinstance(self.classifier, Classifier) else []
        return [*(judge.features.stamp() for judge in self.discriminator.judges), *classifier]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        known = checkpoint["hyper_parameters"].get("features_fingerprints") or []
        for judge, saved in zip(self.discriminator.judges, known, strict=False):
            judge.features.check_trained_with(saved)
        super().on_load_checkpoint(checkpoint)

    # ---- sampling and editing ----------------------------------------------------------------------------------------

    def player(self, *, ema: bool = True) -> Generator:
        """The averaged generator, or the one that is trained."""
        return self.generator_ema if ema else self.generator

    def generate(self, z: Tensor, *, labels: Tensor | None = None, psi: float = 1.0, ema: bool = True) -> Tensor:
        """z [N, z_dim] (and labels [N]) -> images [N, C, H, W] in [-1, 1]; psi truncates w towards its class's mean."""
        network = self.player(ema=ema)
        with evaluating(network):
            return network(z, labels, psi=psi).clamp(-1, 1)

    def styles(
        self,
        z: Tensor,
        *,
        labels: Tensor | None = None,
        psi: float = 1.0,
        ema: bool = True,
        centroids: Tensor | None = None,
    ) -> Tensor:
        """z [N, z_dim] (and labels [N]) -> ws [N, L, W]; psi truncates as in `MappingNetwork`; differentiable."""
        return self.player(ema=ema).mapping(z, labels, psi=psi, centroids=centroids)

    def class_centres(self, *, ema: bool = True) -> Tensor:
        """[C, W]: the averages of w to which psi truncates, of each class; [1, W] where there are none."""
        return self.player(ema=ema).mapping.w_avg.view(max(self.num_classes, 1), -1)

    def synthesize(self, ws: Tensor, *, ema: bool = True) -> Tensor:
        """ws [N, L, W] -> images [N, C, H, W] in single precision, not clamped; differentiable."""
        return self.player(ema=ema).synthesis(ws, force_fp32=True)

    def style_layers(self, *, ema: bool = True) -> dict[str, StyleLayer]:
        """See `HasLayers`."""
        return self.player(ema=ema).synthesis.style_layers()

    def feature_layers(self, *, ema: bool = True) -> dict[str, nn.Module]:
        """See `HasLayers`."""
        return self.player(ema=ema).synthesis.feature_layers()

    def feature_margins(self, *, ema: bool = True) -> dict[str, int]:
        """See `HasMargins`."""
        return self.player(ema=ema).synthesis.feature_margins()

    def synthesize_transformed(self, ws: Tensor, transform: Tensor, *, ema: bool = True) -> Tensor:
        """As `synthesize`, with `transform` [3, 3] in place of the input's own: see `SynthesisInput`."""
        moved = {"input.transform": transform.to(ws)}
        return functional_call(self.player(ema=ema).synthesis, moved, ws, {"force_fp32": True})


def hinges(real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(discriminators' loss, generator's loss): sums over the feature networks' logits [N, L]."""
    losses = [hinge(real, fake) for real, fake in zip(real_logits, fake_logits, strict=True)]
    return torch.stack([d for d, _ in losses]).sum(), torch.stack([g for _, g in losses]).sum()


def seen_px(features: str, resolution: int) -> int:
    """The side that a network sees: of images, and never less than 224; exactly 224 for a vision transformer."""
    return PUBLISHED_PX if "vit" in features or "deit" in features else max(resolution, PUBLISHED_PX)
