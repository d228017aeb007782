"""What is done to a trained generator: inversion of pictures, its layers one by one, tables of styles."""

from lit_gans.editing.ageing import reconstruct
from lit_gans.editing.drag import Drag, Dragged, DragStep, begin_drag, drag
from lit_gans.editing.encoder import Encoder, read_encoder, save_encoder, train_encoder
from lit_gans.editing.inversion import invert
from lit_gans.editing.latents import project_latent
from lit_gans.editing.layers import channel_styles, synthesize_features, synthesize_shifted
from lit_gans.editing.projector import Projection, Step, project, read_projection, render
from lit_gans.editing.styles import style_mixing, styles_of, truncation_sweep
from lit_gans.editing.tuning import read_weights_of, save_weights, tune, tuned_model

__all__ = [
    "Encoder",
    "Drag",
    "DragStep",
    "Dragged",
    "Projection",
    "Step",
    "begin_drag",
    "channel_styles",
    "invert",
    "drag",
    "project",
    "project_latent",
    "read_encoder",
    "read_projection",
    "read_weights_of",
    "reconstruct",
    "render",
    "save_encoder",
    "save_weights",
    "style_mixing",
    "styles_of",
    "synthesize_features",
    "synthesize_shifted",
    "train_encoder",
    "truncation_sweep",
    "tune",
    "tuned_model",
]
