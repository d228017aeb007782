"""State-dict names of pix2pixHD, and ours."""

from __future__ import annotations

# State-dict names of pix2pixHD -> ours, of a generator, an encoder or a discriminator. Without intermediate features
# the official discriminator has its layers in one row: a convolution, a rectifier, then by threes with a norm between.
_GROUPS = {0: (0, 0)} | {2 + 3 * i + part: (i + 1, part) for i in range(8) for part in (0, 1)}
OFFICIAL_KEYS: dict[str, str | None] = {
    r"scale(\d+)_layer(\d+)\.(\d+)\.(\w+)": r"scales.\1.groups.\2.\3.\4",
    **{rf"layer(\d+)\.{i}\.(\w+)": rf"scales.\1.groups.{j}.{part}.\2" for i, (j, part) in _GROUPS.items()},
    r"model\.(\d+)\.conv_block\.(\d+)\.(\w+)": r"layers.\1.layers.\2.\3",
    r"model\.(\d+)\.(\w+)": r"layers.\1.\2",
    r"model(\d+)_1\.(\d+)\.(\w+)": r"enhancers.\1.down.\2.\3",
    r"model(\d+)_2\.(\d+)\.conv_block\.(\d+)\.(\w+)": r"enhancers.\1.up.\2.layers.\3.\4",
    r"model(\d+)_2\.(\d+)\.(\w+)": r"enhancers.\1.up.\2.\3",
}
OFFICIAL_NETWORKS = {"G": "generator", "D": "discriminator", "E": "encoder"}
