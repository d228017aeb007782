"""State-dict names of the official code (taoxugit/AttnGAN), and ours."""

from lit_gans.official.releases import Config, renaming

# Of G_NET, of D_NET64, D_NET128 and D_NET256, and of CNN_ENCODER; RNN_ENCODER's are `OFFICIAL_WORD_ENCODER_KEYS`.
OFFICIAL_KEYS: dict[str, str | None] = {
    r"ca_net\.fc\.(\w+)": r"condition.linear.\1",
    r"h_net1\.fc\.0\.weight": "stages.1.project.weight",
    r"h_net1\.fc\.1\.(\w+)": r"stages.1.norm.\1",
    r"h_net1\.upsample(\d+)\.1\.weight": r"stages.1.ups.\1.conv.weight",
    r"h_net1\.upsample(\d+)\.2\.(\w+)": r"stages.1.ups.\1.norm.\2",
    r"h_net(\d+)\.att\.conv_context\.weight": r"stages.\1.attention.project.weight",
    r"h_net(\d+)\.residual\.(\d+)\.block\.(\d+)\.(\w+)": r"stages.\1.refine.\2.layers.\3.\4",
    r"h_net(\d+)\.upsample\.1\.weight": r"stages.\1.up.conv.weight",
    r"h_net(\d+)\.upsample\.2\.(\w+)": r"stages.\1.up.norm.\2",
    r"img_net(\d+)\.img\.0\.weight": r"to_rgb.\1.weight",
    r"img_code_s16\.(\d+)\.(\w+)": r"encode.\1.\2",
    r"img_code_s(\d+)\.(\d+)\.(\w+)": r"down.\1.\2.\3",
    r"img_code_s\d+_(\d+)\.(\d+)\.(\w+)": r"narrow.\1.\2.\3",
    r"COND_DNET\.jointConv\.(\d+)\.(\w+)": r"conditional.joint.\1.\2",
    r"COND_DNET\.outlogits\.0\.(\w+)": r"conditional.to_logit.\1",
    r"UNCOND_DNET\.outlogits\.0\.(\w+)": r"unconditional.to_logit.\1",
    r"((?:Conv2d|Mixed)_.+)": r"trunk.\1",
    r"emb_features\.weight": "to_regions.weight",
    r"emb_cnn_code\.(\w+)": r"to_image.\1",
}
_ARGUMENTS = renaming({
    "GF_DIM": "width", "Z_DIM": "z_dim", "CONDITION_DIM": "condition_dim", "EMBEDDING_DIM": "embed_dim",
    "R_NUM": "blocks", "BRANCH_NUM": "stages", "DF_DIM": None, "BASE_SIZE": None,
})  # fmt: skip


def from_official_generator(official: Config) -> Config:
    """Values of the official configuration -> arguments of `Generator`. ValueError for one that is not known."""
    ours = {"stages": 3, **_ARGUMENTS(official)}
    return {**ours, "resolution": 64 << (ours["stages"] - 1)}
