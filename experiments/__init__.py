"""Binaries, one a file: `python -m experiments` lists them, `python -m experiments.NAME --help` explains one."""

import sys

if sys.argv[0] == "-m":  # Python is about to run a binary, which imports for seconds
  from attention_lab import interrupts

  interrupts.watch()
  if sys.stderr.isatty():
    print("starting …", file=sys.stderr, flush=True)
