"""The game: the one place that knows Lightning's manual optimisation."""

from lit_gans.adversarial.capabilities import Grows as Progressive
from lit_gans.adversarial.game import Game
from lit_gans.adversarial.gan import GAN
from lit_gans.adversarial.optim import lazy_adam, learning_rate_factor
from lit_gans.adversarial.progressive import Growing
from lit_gans.adversarial.strategy import SyncAtStep

__all__ = ["GAN", "Game", "Growing", "Progressive", "SyncAtStep", "lazy_adam", "learning_rate_factor"]
