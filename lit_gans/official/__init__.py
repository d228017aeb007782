"""Released weights: read without running them, and renamed both ways."""

from lit_gans.base.machine import HostilePickle
from lit_gans.official.names import Change, apply_keys, dropped_keys, invert
from lit_gans.official.pickles import OfficialFile, OfficialNetwork, fingerprint, read_official
from lit_gans.official.releases import Release, numbered, of_ours, of_pickle, of_state, renaming
from lit_gans.official.state_dicts import (
    are_state_dicts,
    read_state_dicts,
    state_dict_files,
    write_named_states,
    write_state_dict,
)
from lit_gans.official.writer import Sourced, write_official

__all__ = [
    "Change", "HostilePickle", "OfficialFile", "OfficialNetwork", "Release", "Sourced", "apply_keys", "are_state_dicts",
    "dropped_keys", "fingerprint", "invert", "numbered", "of_ours", "of_pickle", "of_state", "read_official",
    "read_state_dicts", "renaming", "state_dict_files", "write_named_states", "write_official", "write_state_dict",
]  # fmt: skip
