"""What is done to a trained generator: projection of images, tables of styles."""

from lit_gans.editing.layers import channel_styles, synthesize_features, synthesize_shifted
from lit_gans.editing.projector import Projection, Step, project, read_projection, render
from lit_gans.editing.styles import style_mixing, styles_of, truncation_sweep

__all__ = [
    "Projection",
    "Step",
    "channel_styles",
    "project",
    "read_projection",
    "render",
    "style_mixing",
    "styles_of",
    "synthesize_features",
    "synthesize_shifted",
    "truncation_sweep",
]
