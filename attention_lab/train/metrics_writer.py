"""The record of a run: `metrics.jsonl`, TensorBoard files beside it, and the learning curve in memory."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from attention_lab.train import workdir as workdirs

FILE, TENSORBOARD = "metrics.jsonl", "tensorboard"
MAX_ROWS, MAX_POINTS = 1000, 200  # training rows in the file and points in TensorBoard, for each seed


class MetricsWriter:
  """Rows {"step", "split", metrics…}, with "seed" when there are several; without a folder only the curve is kept.

  Going on from step S drops the rows after it, so that no step is recorded twice. Only process 0 writes.
  """

  def __init__(self, folder: pathlib.Path | None, seeds: Sequence[int], steps: int, start: int = 0):
    self._seeds, self._steps, self._file, self._writers = seeds, steps, None, []
    self._validation: list[dict[str, Any]] = []
    if folder is None or jax.process_index():
      return
    rows = [row for row in read(folder / FILE) if row["step"] <= start]
    rows = [row for row in rows if row["split"] == "train" or row["step"] < steps]
    self._validation = [row for row in rows if row["split"] == "validation"]
    workdirs.replace(folder / FILE, "".join(map(_line, rows)))
    self._file = (folder / FILE).open("a", encoding="utf-8")
    self._writers = _writers(folder / TENSORBOARD, seeds, start)

  def write(self, step: int, split: str, metrics: Sequence[Mapping[str, float]]) -> bool:
    """Writes one row for each seed; of training every one up to 1,000 steps and evenly spaced ones of a longer run.

    Returns whether the step is one that is recorded.
    """
    last = step == self._steps
    if split == "train" and step % math.ceil(self._steps / MAX_ROWS) and not last:
      return False
    rows = [{"step": step, "split": split, **values} for values in metrics]
    if len(self._seeds) > 1:
      rows = [{"seed": seed, **row} for seed, row in zip(self._seeds, rows, strict=True)]
    self._validation += rows if split == "validation" else []
    if self._file:
      self._file.writelines(map(_line, rows))
    if split != "train" or step % math.ceil(self._steps / MAX_POINTS) == 0 or last:
      for writer, values in zip(self._writers, metrics, strict=False):
        for name, value in values.items():
          if math.isfinite(value):  # TensorBoard draws no other, and its writer would complain of each
            writer.add_scalar(f"{split}/{name}", value, step)
    return True

  def curve(self, seed: int, metric: str) -> list[list[Any]]:
    """[[step, metric on the validation split], …] of one seed."""
    return [[row["step"], row[metric]] for row in self._validation if row.get("seed", seed) == seed]

  def flush(self) -> None:
    """Hands what was written to the operating system."""
    if self._file:
      self._file.flush()

  def __enter__(self) -> "MetricsWriter":
    return self

  def __exit__(self, *_: Any) -> None:
    for handle in (self._file, *self._writers):
      if handle:
        handle.close()


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """The rows of `metrics.jsonl`; none without the file, and not a last line that a killed run left unfinished.

  Raises:
    ValueError: any other line is no row; the file and the line are named.
  """
  rows, lines = [], path.read_bytes().splitlines() if path.exists() else []
  for number, line in enumerate(lines, 1):
    try:
      row = json.loads(line)
      rows.append({"step": row["step"], "split": row["split"]} | row)
    except (ValueError, KeyError, TypeError):
      if number < len(lines):
        raise ValueError(f"{path}: line {number} is no row of a run; mend it, or remove the line") from None
  return rows


def _line(row: Mapping[str, Any]) -> str:
  """One row as a line of JSON, which has no NaN and no infinity: they become null."""
  finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
  return json.dumps(finite, allow_nan=False) + "\n"


def _writers(folder: pathlib.Path, seeds: Sequence[int], start: int) -> list[Any]:
  import tensorboardX

  folders = [folder / f"seed_{seed}" for seed in seeds] if len(seeds) > 1 else [folder]
  return [tensorboardX.SummaryWriter(str(path), purge_step=start + 1) for path in folders]
