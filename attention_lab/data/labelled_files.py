"""Labelled texts of the user's own: a .csv, .tsv or .jsonl file, or a folder of {train,validation,test}.* of them.

A table starts with the names of its columns; in .csv a field may stand in quotes (RFC 4180), in .tsv a quote is a
character like any other, as in GLUE. A line of .jsonl is one object. Labels are strings, whole numbers or booleans.
"""

import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attention_lab.config import nearest_hint
from attention_lab.data.dataset import SPLITS, validate_path

SUFFIXES = (".csv", ".tsv", ".jsonl")
FLAG = "--config.data.path"
_TEXT, _LABEL = ("text", "sentence"), ("label",)  # columns that are taken if none is named
_LONGEST = 1 << 30  # characters of a field

Rows = Iterator[tuple[int, dict[str, Any]]]  # line number, the row by column


@dataclasses.dataclass(frozen=True)
class Table:
  """Texts and their labels, as written."""

  texts: list[str]
  labels: list[str]


def read(path: str, text_column: str = "", label_column: str = "") -> dict[str, Table]:
  """The tables by split, under "" where one file is all; columns "" are `text` or `sentence`, and `label`.

  Raises ValueError, naming the file and the line, for whatever does not fit.
  """
  root = validate_path(path)
  try:
    files = _files(root)
    contents = {split: file.read_bytes() for split, file in files.items()}
  except OSError as error:
    reason = f"{error.filename or root}: {error.strerror}"
    raise ValueError(f"{FLAG}={path} cannot be read ({reason}); give a file or folder") from None
  return {split: _table(file, contents[split], text_column, label_column) for split, file in files.items()}


def _files(root: Path) -> dict[str, Path]:
  kinds = ", ".join(SUFFIXES)
  if not root.is_dir():
    if root.suffix.lower() not in SUFFIXES:
      raise ValueError(f"{FLAG}={root} is no table of texts; give a file of {kinds}, or a folder with train.*")
    return {"": root}
  found: dict[str, Path] = {}
  for file in sorted(root.iterdir()):
    if file.stem in SPLITS and file.suffix.lower() in SUFFIXES:
      if file.stem in found:
        raise ValueError(f"{FLAG}={root} has both {found[file.stem].name} and {file.name}; leave one")
      found[file.stem] = file
  if "train" not in found:
    raise ValueError(f"{FLAG}={root} has no file train with one of {kinds}; give it, or a single file")
  return found


def _table(file: Path, content: bytes, text_column: str, label_column: str) -> Table:
  try:
    text = content.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise ValueError(f"{FLAG}: {file} is not UTF-8 at byte {error.start}; convert it") from None
  if not text.strip():
    raise ValueError(f"{FLAG}: {file} is empty; give it rows of text and label")
  columns, rows = _jsonl(file, text) if file.suffix.lower() == ".jsonl" else _separated(file, text)
  text_column = _column(file, "text_column", text_column, columns, _TEXT)
  label_column = _column(file, "label_column", label_column, columns, _LABEL)
  texts, labels = [], []
  for line, row in rows:
    given, label = row.get(text_column), row.get(label_column)
    if not isinstance(given, str):
      raise ValueError(f"{FLAG}: {file}, line {line} has no text in {text_column}; give it, or leave the line out")
    if not isinstance(label, str | int) or not str(label).strip():
      kind = "no label" if label in (None, "") or isinstance(label, str) else f"a {type(label).__name__} as label"
      raise ValueError(f"{FLAG}: {file}, line {line} has {kind} in {label_column}; give one, or leave the line out")
    texts.append(given)
    labels.append(str(label).strip())
  if not texts:
    raise ValueError(f"{FLAG}: {file} has no rows below its header; give it texts and labels")
  return Table(texts, labels)


def _column(file: Path, flag: str, name: str, columns: Sequence[str], usual: Sequence[str]) -> str:
  found = [column for column in ([name] if name else usual) if column in columns]
  if not found:
    given = f"--config.data.{flag}={name}" if name else f"--config.data.{flag} is not given, and {' or '.join(usual)}"
    hint = nearest_hint(name, columns) if name else ""
    raise ValueError(f"{given} is no column of {file}{hint}; choices: {', '.join(columns)}")
  return found[0]


def _separated(file: Path, text: str) -> tuple[list[str], Rows]:
  form: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if file.suffix.lower() == ".tsv" else {}
  csv.field_size_limit(_LONGEST)
  reader = csv.reader(io.StringIO(text, newline=""), strict=True, **form)
  columns: list[str] = []

  def rows() -> Rows:
    try:
      for values in reader:
        if not values:
          continue
        if len(values) != len(columns):
          counts = f"{len(values)} fields, but the header has {len(columns)}"
          raise ValueError(f"{FLAG}: {file}, line {reader.line_num} has {counts}; quote or mend it")
        yield reader.line_num, dict(zip(columns, values, strict=True))
    except csv.Error as error:
      raise ValueError(f"{FLAG}: {file}, line {reader.line_num} cannot be read ({error}); mend it") from None

  try:
    columns.extend(name.strip() for name in next(values for values in reader if values))
  except (csv.Error, StopIteration) as error:
    raise ValueError(f"{FLAG}: {file} has no header ({error}); name its columns in the first line") from None
  return columns, rows()


def _jsonl(file: Path, text: str) -> tuple[list[str], Rows]:
  rows = [(line, _object(file, line, row)) for line, row in enumerate(text.split("\n"), 1) if row.strip()]
  return list(rows[0][1]), iter(rows)


def _object(file: Path, line: int, row: str) -> dict[str, Any]:
  try:
    found = json.loads(row)
  except (json.JSONDecodeError, RecursionError) as error:
    raise ValueError(f"{FLAG}: {file}, line {line} is not JSON ({error}); give one object a line") from None
  if not isinstance(found, dict):
    raise ValueError(f"{FLAG}: {file}, line {line} is no JSON object; give one with text and label")
  return found
