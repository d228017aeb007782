"""VQGAN (Esser et al., 2021), https://arxiv.org/abs/2012.09841, Section 3.1, small: pictures as tokens of a codebook.

A model outside the package: its config beside it names it, `class_path: vqgan_tokenizer.VQGAN`; see docs/adversary.md.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.adversarial import Game
from lit_gans.adversarial.losses import hinge
from lit_gans.base.grids import spread
from lit_gans.base.images import from_uint8, to_uint8
from lit_gans.base.processes import mean_over_processes
from lit_gans.data import ImageData
from lit_gans.nn import BatchNorm
from lit_gans.nn.mode import evaluating


class Block(nn.Module):
    """[N, C, H, W] -> [N, out, H, W]: a residual of two normalised convolutions (Table 7)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1),
            nn.GroupNorm(8, out), nn.SiLU(), nn.Conv2d(out, out, 3, padding=1),
        )  # fmt: skip
        self.skip = nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.residual(x)


class Quantiser(nn.Module):
    """z [N, D, H, W] -> (each place's nearest code, the loss that draws the two together, tokens int64 [N, H, W])."""

    def __init__(self, codes: int, dim: int, *, commitment: float) -> None:
        super().__init__()
        self.codebook, self.commitment = nn.Embedding(codes, dim), commitment
        nn.init.uniform_(self.codebook.weight, -1 / codes, 1 / codes)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, codes = z.movedim(1, -1), self.codebook.weight
        tokens = (codes.square().sum(1) - 2 * rows @ codes.T).argmin(-1)  # Eq. 2; |z|^2 is the same for all codes
        nearest = self.codebook(tokens).movedim(-1, 1)
        drawn, committed = (nearest - z.detach()).square().mean(), (nearest.detach() - z).square().mean()
        return z + (nearest - z).detach(), drawn + self.commitment * committed, tokens  # straight-through, Eq. 4


class VQGAN(Game):
    """A convolutional tokenizer of pictures, H / 4 x W / 4 tokens each; `gan_from_kimg` is when its critic joins.

    Deviations: L1 without the perceptual distance, whose network knows photographs; no attention; few layers.
    """

    def __init__(
        self, *, channels: int = 1, width: int = 32, codes: int = 128, code_dim: int = 16, commitment: float = 0.25,
        gan_from_kimg: float = 20.0, gan_weight: float = 0.8, lr: float = 3e-4, **game: Any,
    ) -> None:  # fmt: skip
        super().__init__(**game)
        self.save_hyperparameters()
        self.gan_from_kimg, self.gan_weight, self.lr, w = gan_from_kimg, gan_weight, lr, width
        down = [nn.Conv2d(channels, w, 3, 2, 1), Block(w, w), nn.Conv2d(w, 2 * w, 3, 2, 1), Block(2 * w, 2 * w)]
        self.encoder = nn.Sequential(*down, nn.Conv2d(2 * w, code_dim, 1))
        self.quantiser = Quantiser(codes, code_dim, commitment=commitment)
        up = [Block(2 * w, 2 * w), nn.Upsample(None, 2), Block(2 * w, w), nn.Upsample(None, 2), Block(w, w)]
        self.decoder = nn.Sequential(nn.Conv2d(code_dim, 2 * w, 1), *up, nn.Conv2d(w, channels, 3, padding=1))
        self.discriminator = nn.Sequential(  # of patches (Isola et al., 2017)
            nn.Conv2d(channels, w, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(w, 2 * w, 4, 2, 1, bias=False),
            BatchNorm(2 * w), nn.LeakyReLU(0.2), nn.Conv2d(2 * w, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N, C, H, W] in [-1, 1] -> (reconstruction, codebook loss, tokens int64 [N, H / 4, W / 4])."""
        quantised, loss, tokens = self.quantiser(self.encoder(x))
        return self.decoder(quantised), loss, tokens

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        opt_g, opt_d = self.optimizers()
        judged = self.kimg >= self.gan_from_kimg
        with self.updating(opt_g):
            for (x,) in self.split(batch["image"]):
                fake, loss_codes, _ = self(x)
                loss_l1 = loss = (fake - x).abs().mean()
                if judged:
                    loss_g = -self.discriminator(fake).mean()
                    weight = self.gan_weight * self.balance(loss_l1, loss_g)
                    loss = loss + weight * loss_g
                    self.report(loss_g=loss_g, weight_g=weight)
                self.accumulate(loss + loss_codes)
                self.report(loss_l1=loss_l1, loss_codes=loss_codes)
        if not judged:
            return
        with self.updating(opt_d):
            for (x,) in self.split(batch["image"]):
                logits = self.discriminator(x), self.discriminator(self(x)[0].detach())
                self.accumulate(loss_d := 0.5 * hinge(*logits)[0])  # the official code's half
                self.report_discriminator(loss_d, *logits)

    def balance(self, loss_l1: Tensor, loss_g: Tensor) -> Tensor:
        """Eq. 7: how much larger the gradient of L1 is in the last layer, over the batches of all processes."""
        last = self.decoder[-1].weight
        l1, g = (torch.autograd.grad(loss, last, retain_graph=True)[0] for loss in (loss_l1, loss_g))
        return (mean_over_processes(l1).norm() / (mean_over_processes(g).norm() + 1e-6)).clamp(max=1e4)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        players = nn.ModuleList([self.encoder, self.quantiser, self.decoder]), self.discriminator
        return [torch.optim.Adam(p.parameters(), lr=self.lr, betas=(0.5, 0.9)) for p in players]

    @torch.no_grad()
    def preview(self, data: ImageData, *, rows: int, columns: int, psi: float) -> tuple[Tensor, int]:
        """Rows of held-out pictures, below each the reconstructions of its tokens."""
        held_out = data.dataset(data.splits[-1])
        x = from_uint8(held_out.fetch(spread(len(held_out), max(rows // 2, 1) * columns))["image"]).to(self.device)
        with evaluating(self):
            pairs = torch.stack([to_uint8(x), to_uint8(self(x)[0])]).cpu()
        return pairs.unflatten(1, (-1, columns)).transpose(0, 1).flatten(0, 2), columns
