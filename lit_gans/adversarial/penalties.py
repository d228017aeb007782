"""Penalties on players: pure functions of a network and tensors, unweighted, always in single precision.

`network` is a callable from images [N, C, H, W] to logits [N]. Papers pass `discriminator.forward`, which stays eager
when the module is compiled (compiled networks cannot be differentiated twice), conditional ones with
`functools.partial`. Under automatic mixed precision the penalties run outside of autocast: second derivatives of
half-precision logits underflow.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lit_gans.nn.resample import no_autocast

Network = Callable[[Tensor], Tensor]


def input_gradient(network: Network, images: Tensor) -> Tensor:
    """d(sum of logits)/d(images) [N, ...], itself differentiable with respect to the network's parameters."""
    with torch.autocast(images.device.type, enabled=False), torch.enable_grad():
        images = images.detach().to(torch.promote_types(images.dtype, torch.float32)).requires_grad_(True)
        (gradient,) = torch.autograd.grad(network(images).sum(), images, create_graph=True)
    return gradient


def r1(network: Network, real: Tensor) -> Tensor:
    """Mean squared gradient norm at the reals; papers multiply by gamma / 2 (Mescheder et al., 2018, Eq. 9)."""
    return input_gradient(network, real).square().flatten(1).sum(1).mean()


def r2(network: Network, fake: Tensor) -> Tensor:
    """Mean squared gradient norm at the fakes; papers multiply by gamma / 2 (Mescheder et al., 2018, Eq. 10)."""
    return r1(network, fake)


def gradient_penalty(network: Network, real: Tensor, fake: Tensor, *, mix: Tensor) -> Tensor:
    """Mean of (gradient norm - 1)^2 between reals and fakes; times lambda = 10 (Gulrajani et al., 2017, Eq. 3).

    mix [N] in [0, 1]: the share of the real in each sample of the line between the two.
    """
    mix = mix.view(-1, *[1] * (real.dim() - 1)).to(real.dtype)  # [N] -> [N, 1, 1, 1]
    return _unit_norm(input_gradient(network, fake.detach().to(real.dtype).lerp(real, mix)))


def dragan(network: Network, real: Tensor, *, mix: Tensor, noise: Tensor) -> Tensor:
    """Mean of (gradient norm - 1)^2 around the reals (Kodali et al., 2017, Algorithm 1), times lambda = 10.

    Reals are moved by mix [N] in [0, 1] times 0.5 * std(real) * noise, noise [N, C, H, W] in [0, 1], as in the
    authors' code; the paper writes a normal perturbation.
    """
    mix = mix.view(-1, *[1] * (real.dim() - 1)).to(real.dtype)  # [N] -> [N, 1, 1, 1]
    return _unit_norm(input_gradient(network, real + mix * 0.5 * real.std() * noise))


def path_length(synthesis: Network, ws: Tensor, *, noise: Tensor) -> Tensor:
    """How far images move per unit of w, [N]: |J^T y| for a random image y (Karras et al., 2020a, Eq. 4).

    `synthesis` is a callable from ws [N, L, W] to images [N, C, H, W]; noise [N, C, H, W] is N(0, 1). y is the noise
    over the root of the pixels, so that the length does not depend on the resolution. The gradient has one row per
    layer: its norm is the root of the mean over layers of the squared norms. Papers penalise (length - mean)^2 with
    the running mean of the lengths.
    """
    with torch.autocast(ws.device.type, enabled=False), torch.enable_grad():
        ws = ws.to(torch.promote_types(ws.dtype, torch.float32))
        ws = ws if ws.requires_grad else ws.detach().requires_grad_(True)
        images = synthesis(ws)
        y = noise / math.sqrt(images.shape[2] * images.shape[3])
        (gradient,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
        lengths = gradient.square().sum(2).mean(1).sqrt()  # [N, L, W] -> [N]
        # Zeros for parameters that shift the image whatever w is: a step of Adam then counts for all of them alike.
        return lengths + 0 * images[:, 0, 0, 0]


def orthogonality(weights: Iterable[Tensor], *, norms: bool = False) -> Tensor:
    """Half of the sum of squared products between different rows of each weight [O, ...] (Brock et al., 2019, Eq. 3).

    The official code adds 2 (W W^T without its diagonal) W to the gradient, half of the equation's, and so does this.
    Vectors are passed over. norms: rows shall have length 1 too (Eq. 2).
    """
    total = None
    for weight in weights:
        if weight.dim() < 2:
            continue
        with no_autocast(weight):
            rows = weight.flatten(1)
            products = rows @ rows.T
            lengths = products.diagonal()
            off = products - torch.diag(torch.ones_like(lengths) if norms else lengths)
            term = off.square().sum() / 2
        total = term if total is None else total + term
    if total is None:
        raise ValueError("orthogonality is of weights of two dimensions or more, and there are none")
    return total


def lecam(real_logits: Tensor, fake_logits: Tensor, *, real_anchor: Tensor, fake_anchor: Tensor) -> Tensor:
    """Distance of each side's logits to the other side's moving average (Tseng et al., 2021, Eq. 4).

    The anchors are running means of the logits (the paper's decay is 0.99), kept by the caller.
    """
    return (real_logits - fake_anchor).square().mean() + (fake_logits - real_anchor).square().mean()


def _unit_norm(gradient: Tensor) -> Tensor:
    # 1e-12 under the root: the norm has no derivative at 0, where dead units or a fresh critic can put it.
    return ((gradient.square().flatten(1).sum(1) + 1e-12).sqrt() - 1).square().mean()
