"""Released weights: read without running them, and renamed both ways."""

from lit_gans.official.machine import HostilePickle
from lit_gans.official.names import Change, apply_keys, dropped_keys, invert
from lit_gans.official.pickles import OfficialFile, OfficialNetwork, fingerprint, read_official
from lit_gans.official.writer import write_official

__all__ = [
    "Change",
    "HostilePickle",
    "OfficialFile",
    "OfficialNetwork",
    "apply_keys",
    "dropped_keys",
    "fingerprint",
    "invert",
    "read_official",
    "write_official",
]
