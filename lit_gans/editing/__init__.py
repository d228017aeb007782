"""What is done to a trained generator: projection of images, tables of styles."""

from lit_gans.editing.drag import Drag, Dragged, DragStep, begin_drag, drag
from lit_gans.editing.layers import channel_styles, synthesize_features, synthesize_shifted
from lit_gans.editing.projector import Projection, Step, project, read_projection, render
from lit_gans.editing.styles import style_mixing, styles_of, truncation_sweep

__all__ = [
    "Drag",
    "DragStep",
    "Dragged",
    "Projection",
    "Step",
    "begin_drag",
    "channel_styles",
    "drag",
    "project",
    "read_projection",
    "render",
    "style_mixing",
    "styles_of",
    "synthesize_features",
    "synthesize_shifted",
    "truncation_sweep",
]
