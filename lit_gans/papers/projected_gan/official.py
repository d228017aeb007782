"""The official networks of autonomousvision/projected-gan, their names, and ours."""

from __future__ import annotations

# A layer's tensors: `weight_orig` is the weight under spectral normalisation, `weight_u` and `weight_v` its vectors.
_T = r"\.(?:weight_)?(?P<t>[uv]|weight|bias|running_mean|running_var|num_batches_tracked)(?:_orig)?"

# State-dict names of the official discriminators of levels (MultiScaleD) -> ours.
HEAD_KEYS: dict[str, str | None] = {
    rf"mini_discs\.(\d+)\.main\.(\d+)\.main\.0\.main\.(\d(?:\.\w+wise)?){_T}": r"heads.\1.layers.\2.0.\3.\g<t>",
    rf"mini_discs\.(\d+)\.main\.(\d+)\.main\.(\d(?:\.\w+wise)?){_T}": r"heads.\1.layers.\2.\3.\g<t>",
    rf"mini_discs\.(\d+)\.main\.(\d+){_T}": r"heads.\1.layers.\2.\g<t>",
    rf"mini_discs\.(\d+)\.cls{_T}": r"heads.\1.classify.\g<t>",
    r"mini_discs\.(\d+)\.embed\.weight": r"heads.\1.condition.embed.weight",
    r"mini_discs\.(\d+)\.embed_proj\.0\.(weight|bias)": r"heads.\1.condition.project.0.\2",
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
