"""What a paper's class does unasked is what was published."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lit_gans import papers
from lit_gans.adversarial.priors import Normal, Prior, Uniform
from lit_gans.augment import ImagePool
from lit_gans.callbacks import EMA, AdaptiveAugmentation, FadeIn
from lit_gans.papers.biggan import LargeScaleGAN
from lit_gans.papers.stylegan1 import MappingNetwork
from lit_gans.papers.stylegan2.networks import MappingNetwork as MappingNetwork2
from lit_gans.papers.stylegan2.networks import SynthesisLayer, ToRGB
from lit_gans.papers.stylegan3 import Generator as Generator3
from lit_gans.papers.stylegan_xl import Generator as GeneratorXL
from tests.papers.games import GANS, OTHERS

GAMES = GANS | OTHERS
HALF = (0.5, 0.999)  # Adam's, since DCGAN (Sec. 4)
LOSSES = "lit_gans.adversarial.losses."
PLAYERS = ("lr_g", "lr_d")  # where each has a learning rate of its own

# Sources: sections of the paper named by the class, or options of its official code.
PUBLISHED: dict[Callable[..., Any], dict[str, Any]] = {
    # pylearn2, adversarial/mnist.yaml: learning_rate, init_momentum; dims of h0, h1; num_units, num_pieces; dropout of
    # the discriminator 0.8 kept of the input, 0.5 of the others.
    papers.VanillaGAN: {
        "z_dim": 100, "hidden": 1200, "units": 240, "pieces": 5, "input_dropout": 0.2, "dropout": 0.5,
        "optimizer": "sgd", "lr": 0.1, "momentum": 0.5, "loss": f"{LOSSES}non_saturating", "r1_gamma": 0.0,
    },
    # Sec. 4.1 for z and the form "mlp"; of the form "conv" z, width, lr and betas are DCGAN's.
    papers.CGAN: {
        "z_dim": 100, "form": "conv", "width": 128, "embed_dim": 50, "dropout": 0.4, "label_flip": 0.05,
        "optimizer": "adam", "lr": 2e-4, "betas": HALF, "loss": f"{LOSSES}non_saturating", "r1_gamma": 0.0,
    },
    # Sec. 4: learning rate, beta1; Figure 1: z, widths; dcgan_code: 5x5 kernels.
    papers.DCGAN: {
        "resolution": 64, "z_dim": 100, "width": 128, "kernel_size": 5, "lr": 2e-4, "betas": HALF,
        "loss": f"{LOSSES}non_saturating", "r1_gamma": 0.0,
    },
    # Sec. 2.1: groups; DCGAN's z, widths, kernels; Sec. 2.2: pairs; Sec. 3.1: Adam as DCGAN's. Perarnau et al., 2016:
    # the widths of the encoder.
    papers.AgeCGAN: {
        "resolution": 64, "num_classes": 6, "z_dim": 100, "width": 128, "kernel_size": 5, "encoder_pairs": 100_000,
        "encoder_width": 32, "encoder_hidden": 4096, "lr": 2e-4, "betas": HALF, "loss": f"{LOSSES}non_saturating",
        "r1_gamma": 0.0,
    },
    # Algorithm 1: alpha, c, n_critic. Code: --nz.
    papers.WGAN: {"z_dim": 100, "n_critic": 5, "clip": 0.01, "lr": 5e-5},
    # Algorithm 1: lambda, n_critic, alpha, beta1, beta2. gan_cifar_resnet.py: DIM_G, noise of 128.
    papers.WGANGP: {
        "z_dim": 128, "width": 128, "n_critic": 5, "penalty_weight": 10.0, "lr": 1e-4, "betas": (0.0, 0.9),
    },
    # App. A.1: lambda, epsilon_drift, n_critic, alpha, betas. networks.py: fmap_base (8192 doubled by the paper's
    # Table 2), fmap_max, mbstd_group_size; loss.py: cond_weight.
    papers.PGGAN: {
        "resolution": 1024, "z_dim": 512, "channel_base": 16384, "channel_max": 512, "mbstd_group_size": 4,
        "mbstd_channels": 1, "n_critic": 1, "penalty_weight": 10.0, "drift": 0.001, "class_weight": 1.0, "lr": 0.001,
        "betas": (0.0, 0.99),
    },
    # App. C: mapping of 8 layers, lr, betas, gamma; Sec. 3.1 and Table 2: 90 % mixing; App. B: truncation up to 32 px.
    papers.StyleGAN1: {
        "resolution": 1024, "z_dim": 512, "w_dim": 512, "num_layers": 8, "objective": "logistic", "r1_gamma": 10.0,
        "penalty_weight": 10.0, "drift": 0.001, "style_mixing": 0.9, "trunc_layers": 8, "noise": "random",
        "mbstd_group_size": 4, "mbstd_channels": 1, "lr": 0.001, "betas": (0.0, 0.99),
    },
    MappingNetwork: {"num_layers": 8, "lr_multiplier": 0.01, "w_avg_decay": 0.995},  # App. C; dlatent_avg_beta
    # BMSG-GAN, train.py: --loss_function, --g_lr, --d_lr, --adam_beta1, --adam_beta2, --latent_size.
    papers.MSGGAN: {
        "z_dim": 512, "width": 512, "networks": "pggan", "loss": f"{LOSSES}relativistic_average_hinge",
        "penalty_weight": 0.0, "r1_gamma": 0.0, "lr": 0.003, "betas": (0.0, 0.99),
    },
    # App. B: lr, betas, gamma, lazy intervals 16 and 4, mini-batch / 2; loss.py: pl_weight, pl_decay, the mixing.
    papers.StyleGAN2: {
        "z_dim": 512, "w_dim": 512, "num_layers": 8, "channel_base": 32768, "channel_max": 512,
        "generator_architecture": "skip", "discriminator_architecture": "resnet", "mbstd_group_size": 4,
        "mbstd_channels": 1, "lr": 0.002, "betas": (0.0, 0.99), "r1_gamma": 10.0, "r1_interval": 16, "pl_weight": 2.0,
        "pl_interval": 4, "pl_shrink": 2, "pl_decay": 0.01, "style_mixing": 0.9, "noise": "random",
    },
    MappingNetwork2: {"w_avg_decay": 0.995},  # stylegan2-ada-pytorch, networks.py
    # stylegan3, train.py: --cfg=stylegan3-t, --cbase, --cmax, --glr, --dlr, --map-depth, --mbstd-group; configs.md:
    # gamma at 256 px; networks_stylegan3.py: layers, margin, clamp.
    papers.StyleGAN3: {
        "z_dim": 512, "w_dim": 512, "mapping_layers": 2, "num_layers": 14, "num_critical": 2, "margin_px": 10,
        "channel_base": 32768, "channel_max": 512, "conv_clamp": 256, "mbstd_group_size": 4, "mbstd_channels": 1,
        "lr_g": 0.0025, "lr_d": 0.002, "betas": (0.0, 0.99), "r1_gamma": 2.0, "r1_interval": 16, "blur_sigma": 0.0,
    },
    Generator3: {"mapping_layers": 2, "lr_multiplier": 0.01, "w_avg_decay": 0.998},
    # stylegan-xl, train.py: --cfg=stylegan3-t, --syn_layers of its ImageNet stem, --glr, --dlr, what it doubles and
    # sets for all; training_loop.py: G_reg_interval, D_reg_interval; loss.py: the start of the path length.
    papers.StyleGANXL: {
        "resolution": 16, "z_dim": 64, "w_dim": 512, "mapping_layers": 2, "num_layers": 10, "num_critical": 2,
        "margin_px": 10, "channel_base": 65536, "channel_max": 1024, "configuration": "T", "embedding": (1000, 320),
        "features": ("deit_base_distilled_patch16_224", "tf_efficientnet_lite0"), "mixed_channels": 64,
        "num_heads": 4, "policy": ("color", "translation", "cutout"), "guidance_weight": 0.0, "lr_g": 0.0025,
        "lr_d": 0.002, "betas": (0.0, 0.99), "pl_weight": 2.0, "pl_interval": 4, "pl_from_kimg": 1000.0,
        "pl_decay": 0.01, "lazy_interval": 16, "blur_sigma": 2.0, "blur_kimg": 300.0,
    },
    # stylegan-t, train.py: --cfg=full, --clip-weight, --blur-init, --blur-fade-kimg, --batch-gpu, both optimisers; its
    # networks: gn_groups, conv_clamp, p_crop, virtual_bs, cmap_dim, the policy.
    papers.StyleGANT: {
        "resolution": 64, "encoder": "clip:openai/clip-vit-large-patch14", "sentence_dim": 768, "phase": "all",
        "primary_px": 64, "z_dim": 64, "mapping_layers": 2, "channel_base": 65536, "channel_max": 2048,
        "num_res_blocks": 3, "gn_groups": 32, "conv_clamp": 256, "features": "vit_small_patch16_224.dino",
        "features_px": 224, "crop_probability": 0.5, "cmap_dim": 64, "norm_group": 8, "at_once": 8,
        "policy": ("color", "translation", "cutout"), "guidance_weight": 0.0, "lr_g": 0.002, "lr_d": 0.002,
        "lr_text": 3e-6, "betas": (0.0, 0.99), "blur_sigma": 32.0, "blur_kimg": 1000.0,
    },
    GeneratorXL: {"mapping_layers": 2, "lr_multiplier": 0.01, "w_avg_decay": 0.998},
    # cfg/birds_s1.yml, birds_s2.yml: Z_DIM, CONDITION_DIM, GF_DIM 192 of COCO and 128, DF_DIM, R_NUM, COEFF.KL,
    # LR_DECAY_EPOCH 100 and MAX_EPOCH 600, of 8855 pictures.
    papers.StackGAN: {
        "resolution": 256, "z_dim": 100, "condition_dim": 128, "width": 128, "discriminator_width": 64, "residuals": 4,
        "kl_weight": 2.0, "lr": 2e-4, "betas": HALF, "stage1_kimg": 600 * 8.855, "halve_every_kimg": 100 * 8.855,
    },
    # FastGAN-pytorch, train.py: nz, ngf, ndf, nlr, nbeta1; percept of "net-lin", "vgg", added up over batch_size 8.
    papers.FastGAN: {
        "resolution": 256, "z_dim": 256, "width": 64, "lite": False, "discriminator_width": 64, "lr": 2e-4,
        "betas": HALF, "reconstruction": "lpips", "reconstruction_weight": 8.0, "perceptual_net": "vgg",
    },
    # cfg/birds_3stages.yml: BRANCH_NUM, Z_DIM, EMBEDDING_DIM, GF_DIM, DF_DIM, R_NUM, COEFF.KL, UNCOND_LOSS,
    # COLOR_LOSS; no penalty, and the condition is not detached in the generator's loss.
    papers.StackGAN2: {
        "resolution": 256, "branches": 3, "topology": "tree", "z_dim": 100, "condition_dim": 128, "width": 64,
        "discriminator_width": 64, "discriminator_norm": True, "residuals": 2, "alone_weight": 1.0,
        "colour_weight": 0.0, "kl_weight": 2.0, "detach_condition": False, "r1_gamma": 0.0, "lr": 2e-4, "betas": HALF,
    },
    # cfg/bird_attn2.yml: BRANCH_NUM, Z_DIM, CONDITION_DIM, GF_DIM, R_NUM, DF_DIM, SMOOTH.LAMBDA and GAMMA1 to 3; the
    # divergence is added as it is.
    papers.AttnGAN: {
        "resolution": 256, "stages": 3, "z_dim": 100, "condition_dim": 100, "width": 32, "blocks": 2,
        "discriminator_width": 64, "joint": True, "damsm_weight": 5.0, "kl_weight": 1.0, "gammas": (4.0, 5.0, 10.0),
        "lr": 2e-4, "betas": HALF,
    },
    # cfg/DAMSM/bird.yml: ENCODER_LR, RNN_GRAD_CLIP, EMBEDDING_DIM, WORDS_NUM, SMOOTH; pretrain_DAMSM.py: times 0.98.
    papers.DAMSM: {
        "sentence_dim": 256, "max_words": 18, "word_dim": 300, "gammas": (4.0, 5.0, 10.0), "lr": 2e-3, "betas": HALF,
        "text_clip": 0.25, "lr_decay": 0.98, "lr_decay_kimg": 8.855,
    },
    papers.JointEmbedding: {"max_words": 18, "max_characters": 201, "lr": 7e-4},  # reedscot/icml2016: -learning_rate
    # Sec. 3.3, App. 6; options --lambda_L1, --lr, --beta1, --netD basic, --norm, --ngf, --ndf; 200 epochs of 400.
    papers.Pix2Pix: {
        "width": 64, "levels": 8, "discriminator_width": 64, "patch_px": 70, "norm": "batch", "dropout": True,
        "l1_weight": 100.0, "loss": f"{LOSSES}non_saturating", "lr": 2e-4, "betas": HALF, "repair_gradients": False,
        "total_kimg": 80.0, "schedule": "linear", "decay_from_kimg": None,
    },
    # Sec. 3, App. A; options --label_nc, --ngf, --n_downsample_global, --n_blocks_global, --n_blocks_local,
    # --n_layers_D, --num_D 3 of the paper, --nef, --n_clusters, --lambda_feat (also VGG's), --lr; 200 epochs of 2975.
    papers.Pix2PixHD: {
        "num_labels": 35, "instances": True, "width": 64, "downsamplings": 4, "blocks": 9, "local_blocks": 3,
        "discriminator_width": 64, "discriminator_layers": 3, "scales": 3, "norm": "instance", "features": 0,
        "encoder_width": 16, "encoder_downsamplings": 4, "num_clusters": 10, "matching_weight": 10.0,
        "perceptual_weight": 10.0, "lr": 2e-4, "betas": HALF, "total_kimg": 595.0, "schedule": "linear",
    },
    # Sec. 4, 5.2, App. 7; options --lambda_A, --lambda_B, --lambda_identity, --pool_size, --lr, --beta1, --netG.
    papers.CycleGAN: {
        "width": 64, "blocks": 9, "discriminator_width": 64, "norm": "instance", "cycle_weight": 10.0,
        "identity_weight": 0.5, "pool_size": 50, "lr": 2e-4, "betas": HALF, "total_kimg": 200.0, "schedule": "linear",
        "repair_gradients": False,
    },
    # projected-gan, train.py: --cfg=fastgan, G and D learning rates, betas; projector.py: cout, expand, proj_type; its
    # training_loop.py: D_reg_interval; diffaug.py: the policy.
    papers.ProjectedGAN: {
        "generator": "fastgan", "z_dim": 256, "width": 128, "w_dim": 128, "mapping_layers": 2, "channel_base": 32768,
        "channel_max": 512, "num_half_res": 0, "features": "tf_efficientnet_lite0", "features_weights": None,
        "features_px": None, "features_normalise": False, "mixing": "scales", "mixed_channels": 64, "expand": True,
        "num_heads": 4, "separable": False, "patch": False, "policy": ("color", "translation", "cutout"), "lr_g": 2e-4,
        "lr_d": 2e-4, "betas": (0.0, 0.99), "lazy_interval": 16,
    },
    # BigGAN-PyTorch, scripts/launch_BigGAN_bs256x8.sh: --G_ch, --D_ch, --dim_z, --shared_dim, --G_attn, --hier,
    # --G_shared, --SN_eps, --BN_eps, --G_init; utils.py: D_wide, num_G_SVs, num_G_SV_itrs.
    papers.BigGAN: {
        "resolution": 128, "num_classes": 1000, "z_dim": 120, "width": 96, "discriminator_width": None,
        "attention": (64,), "shared": True, "shared_dim": 128, "hierarchical": True, "generator_norm": "spectral",
        "norm": "batch", "bn_eps": 1e-5, "wide": True, "sn_eps": 1e-6, "sn_vectors": 1, "sn_steps": 1,
        "init": "orthogonal",
    },
    # scripts/launch_BigGAN_deep.sh: --G_ch, --D_ch, --G_depth, --D_depth, --dim_z, --shared_dim, --G_attn.
    papers.BigGANDeep: {
        "resolution": 128, "num_classes": 1000, "z_dim": 128, "width": 128, "depth": 2, "attention": (64,),
        "shared_dim": 128, "norm": "batch", "bn_eps": 1e-5, "sn_eps": 1e-6, "init": "orthogonal",
    },
    # The same scripts: --num_D_steps, --G_lr, --D_lr, --G_B2, --D_B2, --adam_eps, --G_ortho; utils.py: G_B1, D_B1,
    # D_ortho, num_standing_accumulations.
    LargeScaleGAN: {
        "d_steps": 1, "lr_g": 1e-4, "lr_d": 4e-4, "betas": (0.0, 0.999), "adam_eps": 1e-6, "loss": f"{LOSSES}hinge",
        "ortho_g": 0.0, "ortho_d": 0.0, "standing_passes": 16,
    },
    # R3GAN, train.py: the preset CIFAR10; half of each batch is each player's.
    papers.R3GAN: {
        "resolution": 32, "z_dim": 64, "widths": (768,) * 4, "cardinalities": (96,) * 4, "num_blocks": (2,) * 4,
        "expansion": 2, "half_dtype": "bfloat16", "lr": 2e-4, "lr_end": 5e-5, "betas": (0.0, 0.9), "beta2_end": 0.99,
        "gamma": 0.05, "gamma_end": 0.005, "augment_p_end": 0.55,
    },
    ImagePool: {"size": 50},
    # stylegan2-ada-pytorch: ema_kimg 10 at 32 a batch, ema_rampup
    EMA: {"half_life_kimg": 10.0, "ramp_up": 0.05, "start_kimg": 0.0, "average_buffers": False, "rise_kimg": 0.0},
    AdaptiveAugmentation: {"interval": 4, "target": 0.6, "speed_kimg": 500.0},  # ada_interval, ada_target, ada_kimg
    FadeIn: {"stabilise_kimg": 600.0, "fade_kimg": 600.0},  # PGGAN, App. A.1: 800 thousand on CelebA-HQ, 600 in code
}  # fmt: skip


@pytest.mark.parametrize("cls", PUBLISHED, ids=lambda cls: cls.__name__)
def test_what_was_published_is_what_is_done_unasked(cls: Callable[..., Any]) -> None:
    defaults = {name: p.default for name, p in inspect.signature(cls).parameters.items()}
    assert {name: defaults[name] for name in PUBLISHED[cls]} == PUBLISHED[cls]


def test_projected_gan_has_the_stylegan2_of_its_authors() -> None:
    """projected-gan, networks_stylegan2.py: conv_clamp of SynthesisBlock, w_avg_beta of MappingNetwork."""
    gan = GAMES["projected-gan-style"][0]()
    clamps = {m.conv_clamp for m in gan.generator.modules() if isinstance(m, (SynthesisLayer, ToRGB))}
    assert clamps == {256} and gan.generator.mapping.w_avg_decay == 0.998
    halves = GAMES["projected-gan-style"][0](num_half_res=1).generator.synthesis.blocks.values()
    assert [block.half for block in halves] == [None] * (len(halves) - 1) + [torch.float16]


def test_every_paper_has_a_row() -> None:
    assert {cls.__name__ for cls in PUBLISHED} >= set(papers.__all__)


@pytest.mark.parametrize("name", GAMES)
def test_learning_rates_and_betas_reach_the_optimisers(name: str) -> None:
    game = GAMES[name][0]()
    given = game.hparams
    optimizers = game.configure_optimizers()
    # StyleGAN2, App. B: a player that is regularised every k-th batch is slowed down by k / (k + 1).
    lazy, rates = "pl_interval" in given or "lr_d" in given, [given.get(name, given.get("lr")) for name in PLAYERS]
    intervals = [given.get("pl_interval"), given.get("r1_interval", given.get("lazy_interval")) if lazy else None]
    optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
    for optimizer, lr, k in zip(optimizers, rates, intervals, strict=False):
        (group,), ratio = optimizer.param_groups, k / (k + 1) if k else 1.0
        assert group["lr"] == pytest.approx(lr * ratio)
        if "betas" in group:
            assert group["betas"] == pytest.approx([beta**ratio for beta in given.get("betas", HALF)])
        elif isinstance(optimizer, torch.optim.SGD):
            assert group["momentum"] == (given["momentum"] if "momentum" in given else given["betas"][0])


SMALL = {"resolution": 16, "channels": 1}


@pytest.mark.parametrize(
    ("build", "prior"),
    [
        (lambda: papers.VanillaGAN(**SMALL), Normal),  # the authors' sampler
        (lambda: papers.DCGAN(**SMALL, width=4), Uniform),  # Sec. 4
        (lambda: papers.CGAN(**SMALL, form="mlp"), Uniform),  # Sec. 4.1
        (lambda: papers.CGAN(**SMALL, width=4), Normal),
        (lambda: papers.WGAN(**SMALL, width=4), Normal),
        (lambda: papers.WGANGP(**SMALL, width=4), Normal),
        (lambda: papers.PGGAN(**SMALL, channel_base=64), Normal),
        (lambda: papers.BigGAN(resolution=32, width=2, attention=[]), Normal),
    ],
)
def test_latents_are_from_the_papers_prior(build: Callable[[], Any], prior: type[Prior]) -> None:
    gan = build()
    assert type(gan.prior) is prior
    drawn, seeded = gan.latents(500, "z"), gan.seeded_latents(range(500))
    for z in (drawn, seeded):
        assert z.mean().abs() < 0.05
        spread = 1.0 if prior is Normal else 3**-0.5
        assert z.std().item() == pytest.approx(spread, rel=0.02) and (prior is Normal or -1 <= z.min() < -0.99)
