"""Every landmark GAN in one readable file, trained by one command, measured by one evaluator.

Nothing heavy is imported here: `import lit_gans` and `lit-gans --help` stay fast.
"""

__version__ = "0.1.0"
