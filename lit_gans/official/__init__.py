"""Released weights: read without running them, and renamed both ways."""

from lit_gans.official.grown import PORT
from lit_gans.official.machine import HostilePickle
from lit_gans.official.names import Change, apply_keys, dropped_keys, invert
from lit_gans.official.pickles import OfficialFile, OfficialNetwork, fingerprint, read_official
from lit_gans.official.state_dicts import (
    COUNTERPARTS,
    are_state_dicts,
    build_ours,
    official_keys,
    read_state_dicts,
    state_dict_files,
    write_named_states,
    write_state_dict,
)
from lit_gans.official.writer import write_official

__all__ = [
    "COUNTERPARTS",
    "Change",
    "PORT",
    "HostilePickle",
    "OfficialFile",
    "OfficialNetwork",
    "apply_keys",
    "are_state_dicts",
    "build_ours",
    "dropped_keys",
    "fingerprint",
    "invert",
    "official_keys",
    "read_official",
    "read_state_dicts",
    "state_dict_files",
    "write_named_states",
    "write_official",
    "write_state_dict",
]
