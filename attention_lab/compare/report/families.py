"""Rows that differ in one number alone: `linear@width=32` and `linear@width=64`, or `local(window=4)` and `…=16`.

On a page of many rows they share colour and marker, and a line joins them where quality is set against a cost.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from attention_lab.compare.schedule import row_spec
from attention_lab.results import figure_files

NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")
WIDTH = "width"


@dataclasses.dataclass(frozen=True)
class Family:
  """Rows by the number in which they differ, as it is written; empty for a row that keeps the table's width.

  `name` is a row with … for the number.
  """

  name: str
  numbers: Mapping[str, str]

  @property
  def title(self) -> str:
    """The name without the width that its rows differ in."""
    return self.name.removesuffix(f"@{WIDTH}=…")


def find(names: Iterable[str]) -> list[Family]:
  """The families of at least two among the rows: of one width each first, then of one other number."""
  names = list(dict.fromkeys(names))
  groups: dict[str, dict[str, str]] = {}
  for name in names:
    changes = _changes(name)
    width = changes.pop(WIDTH, "")
    rest = ",".join(f"{field}={value}" for field, value in sorted((changes | {WIDTH: "…"}).items()))
    groups.setdefault(f"{name.partition('@')[0]}@{rest}", {})[name] = width
  by_width = [Family(name, _ordered(group)) for name, group in groups.items() if len(group) > 1]
  members = {name for family in by_width for name in family.numbers}
  templates: dict[str, list[str]] = {}
  for name in names:
    if name not in members:
      templates.setdefault(NUMBER.sub("#", name), []).append(name)
  return by_width + [family for group in templates.values() if (family := _of_one_number(group))]


def numbers(order: Sequence[str]) -> dict[str, int]:
  """Row -> number, which gives colour, dash and mark on a page; the rows of a family have one where colours run out."""
  if len(order) <= len(figure_files.COLOURS):
    return {name: number for number, name in enumerate(order)}
  first = {name: next(iter(family.numbers)) for family in find(order) for name in family.numbers}
  heads = list(dict.fromkeys(first.get(name, name) for name in order))
  return {name: heads.index(first.get(name, name)) for name in order}


def _of_one_number(group: Sequence[str]) -> Family | None:
  values = {name: NUMBER.findall(name) for name in group}
  varied = [index for index, column in enumerate(zip(*values.values(), strict=True)) if len(set(column)) > 1]
  if len(varied) != 1:
    return None
  match = list(NUMBER.finditer(group[0]))[varied[0]]
  name = f"{group[0][: match.start()]}…{group[0][match.end() :]}"
  return Family(name, _ordered({row: column[varied[0]] for row, column in values.items()}))


def _ordered(chosen: Mapping[str, str]) -> dict[str, str]:
  return dict(sorted(chosen.items(), key=lambda item: (_size(item[1]), item[0])))


def _size(written: str) -> float:
  return float(written) if NUMBER.fullmatch(written) else 0.0


def _changes(name: str) -> dict[str, str]:
  try:
    return row_spec.split(name)[1]
  except ValueError:
    return {}
