"""Draws what every variant attends to: one map each, on the same input, in one picture.

    python -m experiments.visualize --zoo --out=zoo.png
    python -m experiments.visualize --zoo --attention='softmax;local(window=3);alibi' --out=three.png

A panel shows the weights of the first head of a freshly initialised variant, rows being queries and columns keys;
where the output is not linear in the values it shows how sensitive each row is to each token. It runs where JAX runs.
Expected: 35 s for the whole zoo on two CPU cores.
"""

import pathlib

from absl import flags

from attention_lab import cli
from attention_lab.attention import spec
from attention_lab.certify import battery, chart

_ZOO = flags.DEFINE_bool("zoo", False, "Draw the wall chart of the variants.")
_ATTENTION = flags.DEFINE_string("attention", "all", "Variants to draw, separated by ';', or all.")
_OUT = flags.DEFINE_string("out", "zoo.png", "File to write the picture to, as PNG.")


def main() -> int:
  path = pathlib.Path(_OUT.value)
  if not _ZOO.value:
    raise ValueError("say what to draw: --zoo for the wall chart of the variants")
  if path.suffix != ".png" or not path.parent.is_dir():
    raise ValueError(f"--out={path} must be a .png file in a folder that exists")
  rows = [case.SPECS[0] for case in battery.cases().values()]
  wanted = rows if _ATTENTION.value == "all" else spec.rows(_ATTENTION.value)
  variants = [spec.parse(row) for row in wanted]
  chart.draw(map(chart.panel, variants)).save(path)
  print(f"{len(variants)} variants in {path}")
  return 0


if __name__ == "__main__":
  cli.run(main)
