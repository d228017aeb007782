"""Landmark GANs, each in one place to be read beside its paper, trained by one command and measured by one evaluator.

Nothing heavy is imported here: `import lit_gans` and `lit-gans --help` stay fast.
"""

import os

# Threads of OpenMP that wait for each other spin, for billions of rounds where nothing is said of it; beside other work
# on the same cores they wait for those who wait. To be set before torch is loaded; a user's own choice stays.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "10000"

__version__ = "0.1.0"
