"""The official networks of autonomousvision/projected-gan, their names, and ours."""

from __future__ import annotations

# State-dict names of the official discriminators of levels (MultiScaleD) -> ours.
HEAD_KEYS: dict[str, str | None] = {
    r"mini_discs\.(\d+)\.main\.(\d+)\.main\.0\.main\.(\d)\.(.+)": r"heads.\1.layers.\2.0.\3.\4",  # of patches
    r"mini_discs\.(\d+)\.main\.(\d+)\.main\.(\d)\.(.+)": r"heads.\1.layers.\2.\3.\4",
    r"mini_discs\.(\d+)\.main\.(\d+)\.(weight\w+)": r"heads.\1.layers.\2.\3",
    r"mini_discs\.(\d+)\.cls\.(.+)": r"heads.\1.classify.\2",
    r"mini_discs\.(\d+)\.embed\.(.+)": r"heads.\1.condition.embed.\2",
    r"mini_discs\.(\d+)\.embed_proj\.0\.(.+)": r"heads.\1.condition.project.0.\2",
}
# Of the random projections (F_RandomProj without the feature network).
PROJECTOR_KEYS: dict[str, str | None] = {
    r"scratch\.layer(\d)_ccm\.(weight|bias)": r"ccm.\1.\2",
    r"scratch\.layer(\d)_csm\.out_conv\.(weight|bias)": r"csm.\1.\2",
}
# Of the maps that StyleGAN-XL makes of a vision transformer's tokens; what stands before 3 has no weights.
TOKEN_KEYS: dict[str, str | None] = {
    rf"layer{k + 1}\.{3 + i}\.(weight|bias)": rf"layers.{k}.{i}.\1" for k in range(4) for i in range(2)
}
