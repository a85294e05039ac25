"""What became of single examples, in a run's folder: `errors.jsonl` and `tables.json`.

`errors.jsonl` has a row for each wrong prediction, {"split", "index", "input", "label", "predicted", "confidence"};
`tables.json` is a list of {"split", "tables": {name: table}}. With several seeds every row begins with its "seed".
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from attention_lab.tasks.base import EvalResult
from attention_lab.train import workdir as workdirs

ERRORS, TABLES = "errors.jsonl", "tables.json"


def write(folder: pathlib.Path, seeds: Sequence[int], judged: Mapping[str, Sequence[EvalResult]]) -> None:
  """Writes both files anew; `judged`: for each split what was judged, one for each seed. Only process 0 writes."""
  if jax.process_index():
    return
  errors, tables = [], []
  for split, found in judged.items():
    for seed, one in zip(seeds, found, strict=True):
      start: dict[str, Any] = {"seed": seed, "split": split} if len(seeds) > 1 else {"split": split}
      errors += [json.dumps(start | row, ensure_ascii=False) + "\n" for row in one.errors]
      tables += [start | {"tables": one.tables}]
  workdirs.replace(folder / ERRORS, "".join(errors))
  workdirs.replace(folder / TABLES, json.dumps(tables, indent=2, ensure_ascii=False) + "\n")
