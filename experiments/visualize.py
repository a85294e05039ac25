"""Draws what every variant attends to: one map each, on the same input, in one picture.

    python -m experiments.visualize --zoo --out=zoo.png
    python -m experiments.visualize --zoo --attention='softmax;local(window=3);alibi' --out=three.pdf
    python -m experiments.visualize --zoo --out=maps/  # a picture for each variant, in a folder that exists

A panel shows the weights of the first head of a freshly initialised variant, rows being queries and columns keys;
where the output is not linear in the values it shows how sensitive each row is to each token. It runs where JAX runs.
Expected: 35 s for the whole zoo on two CPU cores.
"""

import pathlib

from absl import flags

from attention_lab import cli
from attention_lab.attention import spec
from attention_lab.certify import battery
from attention_lab.results import figure_files
from attention_lab.workflows import zoo

_ZOO = flags.DEFINE_bool("zoo", False, "Draw the wall chart of the variants.")
_ATTENTION = flags.DEFINE_string("attention", "all", "Variants to draw, separated by ';', or all.")
_OUT = flags.DEFINE_string("out", "zoo.png", "File of the picture (png, svg, pdf), or a folder for one PNG a variant.")


def main() -> int:
  path = pathlib.Path(_OUT.value)
  if not _ZOO.value:
    raise ValueError("say what to draw: --zoo for the wall chart of the variants")
  if not path.is_dir() and (path.suffix[1:] not in figure_files.FORMATS or not path.parent.is_dir()):
    raise ValueError(f"--out={path} must be a .png, .svg or .pdf file in a folder that exists, or such a folder")
  everything = tuple(case.SPECS[0] for case in battery.cases().values())
  rows = everything if _ATTENTION.value == "all" else spec.rows(_ATTENTION.value)
  panels = [zoo.panel(spec.parse(row)) for row in rows]
  if path.is_dir():
    for panel in panels:
      target = path / f"{panel.title.partition('(')[0]}.png"
      target.write_bytes(figure_files.render(zoo.draw_single(panel), "png"))
  else:
    path.write_bytes(figure_files.render(zoo.draw(panels), path.suffix[1:]))
  print(f"{len(panels)} variants in {path}")
  return 0


if __name__ == "__main__":
  cli.run(main)
