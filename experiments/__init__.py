"""Binaries, one a file: `python -m experiments` lists them, `python -m experiments.NAME --help` explains one."""
