"""Texts with labels by split: a dataset of TFDS, or the user's own .csv, .tsv or .jsonl files.

Each split comes as published where it is. Where test is missing or has no labels (as in GLUE), the published validation
split is `test`; where validation is missing or taken, a tenth of train is: of each class, in order of a hash of the
text, so that equal texts stay together, and in PHRASED a sentence and its phrases. One file alone is cut 80 / 10 / 10
in the same way. `origin` says which.

The training rows of SST-2 are sentences and the phrases in them (Socher et al. 2013): a validation split of rows by
chance has words and labels of sentences that the model was trained on, and accuracy on it tells nothing of new ones.

A user's table is one file, or a folder of {train,validation,test}.*. It starts with the names of its columns, between
commas in .csv and tabs in .tsv, or else between what DELIMITERS they have. In .csv a field may stand in quotes
(RFC 4180); in .tsv a quote is a character like any other, as in GLUE, unless the file is just as Python's csv module
writes it. A line of .jsonl is one object. Labels are strings, whole numbers or booleans.
"""

import csv
import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attention_lab.config import DataConfig, nearest_hint
from attention_lab.data import prepared, text_files
from attention_lab.data.dataset import SPLITS, validate_name, validate_path
from attention_lab.data.text_files import FLAG

SETS = ("glue/sst2", "sst2", "imdb_reviews")  # names offered where none or a misspelt one is given
ALIASES = {"sst2": "glue/sst2"}
PHRASED = ("glue/sst2",)  # rows are sentences and their phrases, which stay together
HELD_OUT = 0.1  # fraction of each class, for each split that is cut off
_PUBLISHED, _TENTH = "as published", "a tenth of train, by content"  # origins of a split
_PHRASES = ", phrases with their sentence"
_VALIDATION = "the published validation split (the published test split has no labels)"
SUFFIXES = (".csv", ".tsv", ".jsonl")
_TEXT, _LABEL = ("text", "sentence"), ("label",)  # columns that are taken if none is named
DELIMITERS = (",", ";", "\t", "|")
_LONGEST = 1 << 30  # characters of a field
_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character in UTF-16

Rows = Iterator[tuple[int, dict[str, Any]]]  # line number, the row by column


@dataclasses.dataclass(frozen=True)
class Part:
  """The texts of a split and the numbers of their classes, int32 [N]; -1 = without label."""

  texts: list[str]
  labels: np.ndarray

  def rows(self, indices: np.ndarray) -> "Part":
    """The texts at some indices."""
    return Part([self.texts[i] for i in indices], self.labels[indices])


@dataclasses.dataclass(frozen=True)
class Labelled:
  """Labelled texts by SPLITS, names of their classes, and where each split comes from."""

  name: str
  flag: str  # the flag that named them, with its value
  classes: list[str]
  splits: Mapping[str, Part]
  origin: Mapping[str, str]


def read_labelled(
  data: DataConfig, text_column: str = "", label_column: str = "", log: Callable[[str], None] | None = None
) -> Labelled:
  """The labelled texts that a data configuration names, in three splits.

  Args:
    data: `data.name` in `data.dir`, or `data.path` for the user's own tables.
    text_column: the column or feature of the texts; "" = the only one, or `text` or `sentence` of a table.
    label_column: that of the labels; "" = the only one, or `label` of a table.
    log: a function that is given lines of progress (default: standard error).

  Returns:
    Texts and class numbers by split; every class of validation and test is in train.

  Raises:
    ValueError: a dataset that is not there or does not fit, fewer than two classes, labels out of range or unknown to
      train, an empty split; the flag is named.
  """
  name = validate_name(data, SETS, allow_other=True)
  if name:
    if name not in SETS:
      prepared.check(name, data.dir, SETS)
    name = ALIASES.get(name, name)
    flag = f"--config.data.name={name}"
    classes, parts = _published(name, data.dir, (text_column, label_column), log)
  else:
    name, flag = validate_path(data.path).resolve().name, f"{FLAG}={data.path}"
    classes, parts = _user_files(data.path, text_column, label_column)
  splits, origin = _resolved(parts, name in PHRASED)
  texts = Labelled(name, flag, classes, splits, origin)
  _check(texts)
  return texts


def stratified(part: Part, held: Sequence[str], phrased: bool = False) -> dict[str, Part]:
  """The part cut by class: a tenth for each name in `held`, at least one of three texts; the rest is "train".

  Equal texts, and if `phrased` a text and the runs of its words, go where the first of them goes, even if their labels
  differ.
  """
  texts = longest_containing(part.texts) if phrased else part.texts
  keys = np.array([hashlib.sha256(text.strip().encode()).hexdigest() for text in texts])
  unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
  splits = np.full(len(unique), "train", object)
  for label in np.unique(part.labels[first]):
    members = np.flatnonzero(part.labels[first] == label)
    size = max(round(HELD_OUT * len(members)), 1) if len(members) > len(held) else 0
    for number, name in enumerate(held):
      splits[members[number * size : (number + 1) * size]] = name
  return {name: part.rows(np.flatnonzero(splits[inverse] == name)) for name in ("train", *held)}


def longest_containing(texts: Sequence[str]) -> list[str]:
  """For each text the longest one, in words, that it is a run of; of several equally long ones the first."""
  tokens = {text: text.split() for text in texts}
  containing: dict[str, str] = {}  # a run of words -> the longest text that has it
  unassigned = {" ".join(run) for run in tokens.values()}
  for text in sorted(tokens, key=lambda text: (-len(tokens[text]), text)):
    sentence = tokens[text]
    if " ".join(sentence) not in unassigned:
      continue
    for start in range(len(sentence)):
      for end in range(start + 1, len(sentence) + 1):
        run = " ".join(sentence[start:end])
        if run in unassigned:
          unassigned.remove(run)
          containing[run] = text
  return [containing.get(" ".join(tokens[text]), text) for text in texts]


def _resolved(parts: Mapping[str, Part], phrased: bool) -> tuple[dict[str, Part], dict[str, str]]:
  """The three splits and where each comes from; `parts` has "train", or "" for all in one."""
  if "" in parts:
    return stratified(parts[""], ("test", "validation")), dict.fromkeys(SPLITS, "80 / 10 / 10, by content")
  usable = {split: part for split, part in parts.items() if not len(part.labels) or (part.labels >= 0).any()}
  origin = dict.fromkeys(SPLITS, _PUBLISHED)
  if "test" not in usable and "validation" in usable:
    usable["test"] = usable.pop("validation")
    origin["test"] = _VALIDATION if "test" in parts else "the published validation split (there is no test split)"
  held = [split for split in ("test", "validation") if split not in usable]
  if held:
    usable |= stratified(usable["train"], held, phrased)
    origin |= dict.fromkeys(held, _TENTH + _PHRASES * phrased) | {
      "train": f"as published, without {' and '.join(held)}"
    }
  return {split: usable[split] for split in SPLITS}, origin


def _published(
  name: str, directory: str, columns: Sequence[str], log: Callable[[str], None] | None
) -> tuple[list[str], dict[str, Part]]:
  text, label = (_feature(name, directory, *wanted) for wanted in zip(("text", "label"), columns, strict=True))
  sizes = prepared.splits(name, directory)
  if "train" not in sizes:
    raise ValueError(f"--config.data.name={name} has no split train; it has {', '.join(sizes) or 'none'}")
  classes, parts = prepared.class_names(name, directory, label), {}
  for split in (split for split in SPLITS if split in sizes):
    columns_read = prepared.columns(name, split, directory, [text, label], log)
    parts[split] = Part(list(columns_read[text]), np.asarray(columns_read[label], np.int32))
    _check_range(name, split, label, parts[split].labels, len(classes))
  return classes, parts


def _feature(name: str, directory: str, kind: str, wanted: str) -> str:
  """The feature of a kind: the one named, or the only one."""
  if not wanted:
    return prepared.only(name, directory, kind)
  fitting = [feature for feature, other in prepared.features(name, directory).items() if other == kind]
  if wanted not in fitting:
    listed = ", ".join(fitting) or "none"
    raise ValueError(f"--config.data.{kind}_column={wanted} is no {kind} feature of {name}; choices: {listed}")
  return wanted


def _check_range(name: str, split: str, feature: str, labels: np.ndarray, classes: int) -> None:
  wrong = np.flatnonzero((labels < 0) | (labels >= classes))
  if len(wrong) and not (split != "train" and (labels == -1).all()):
    example = f"example {wrong[0]} of {split} has {feature} {labels[wrong[0]]}"
    raise ValueError(
      f"--config.data.name={name}: {example}, out of range 0 to {classes - 1}; prepare the dataset again"
    )


def _user_files(path: str, text_column: str, label_column: str) -> tuple[list[str], dict[str, Part]]:
  tables = read_tables(path, text_column, label_column)
  first = tables.get("train", next(iter(tables.values())))
  classes = sorted(set(first.labels), key=_by_number if all(map(_is_number, first.labels)) else None)
  numbers = {name: number for number, name in enumerate(classes)}
  for split, table in tables.items():
    new = sorted(set(table.labels) - numbers.keys())
    if new:
      raise ValueError(f"{FLAG}={path}: label {new[0]} of {split} is not in train; add or remove it")
  parts = {s: Part(t.texts, np.array([numbers[label] for label in t.labels], np.int32)) for s, t in tables.items()}
  return classes, parts


def _is_number(label: str) -> bool:
  return label.removeprefix("-").isdecimal()


def _by_number(label: str) -> tuple[int, str]:
  return int(label), label


def _check(texts: Labelled) -> None:
  known = np.unique(texts.splits["train"].labels)
  if len(texts.classes) < 2 or len(known) < 2:
    raise ValueError(f"{texts.flag} has {len(known)} classes in train; give texts of two or more")
  for split, part in texts.splits.items():
    if not part.texts:
      raise ValueError(f"{texts.flag}: the {split} split is empty; give more texts, or that split")
    new = np.setdiff1d(part.labels, known)
    if len(new):
      raise ValueError(f"{texts.flag}: label {texts.classes[new[0]]} of {split} is not in train; add or remove it")
    if not any(text.strip() for text in part.texts):
      raise ValueError(f"{texts.flag}: all {len(part.texts)} texts of {split} are empty; give texts")


@dataclasses.dataclass(frozen=True)
class Table:
  """The texts and labels of a file, as written."""

  texts: list[str]
  labels: list[str]


def read_tables(path: str, text_column: str = "", label_column: str = "") -> dict[str, Table]:
  """The tables by split, under "" where one file is all; columns "" are `text` or `sentence`, and `label`.

  Raises ValueError, naming the file and the line, for a table that cannot be read or lacks a column, text or label.
  """
  root = validate_path(path)
  try:
    files = _table_files(root)
    contents = {split: file.read_bytes() for split, file in files.items()}
  except OSError as error:
    reason = f"{error.filename or root}: {error.strerror}"
    raise ValueError(f"{FLAG}={path} cannot be read ({reason}); give a file or folder") from None
  return {split: _table(file, contents[split], text_column, label_column) for split, file in files.items()}


def _table_files(root: Path) -> dict[str, Path]:
  kinds = ", ".join(SUFFIXES)
  if not root.is_dir():
    if root.suffix.lower() not in SUFFIXES:
      raise ValueError(f"{FLAG}={root} is no table of texts; give a file of {kinds}, or a folder with train.*")
    return {"": root}
  files: dict[str, Path] = {}
  for file in sorted(root.iterdir()):
    if file.stem in SPLITS and file.suffix.lower() in SUFFIXES:
      if file.stem in files:
        raise ValueError(f"{FLAG}={root} has both {files[file.stem].name} and {file.name}; leave one")
      files[file.stem] = file
  if "train" not in files:
    raise ValueError(f"{FLAG}={root} has no file train with one of {kinds}; give it, or a single file")
  return files


def _table(file: Path, content: bytes, text_column: str, label_column: str) -> Table:
  text = text_files.decode(file, content)
  if not text.strip():
    raise ValueError(f"{FLAG}: {file} is empty; give it rows of text and label")
  columns, rows = _jsonl(file, text) if file.suffix.lower() == ".jsonl" else _separated(file, text)
  text_column = _column(file, "text_column", text_column, columns, _TEXT)
  label_column = _column(file, "label_column", label_column, columns, _LABEL)
  texts, labels = [], []
  for line, row in rows:
    cell, label = row.get(text_column), row.get(label_column)
    if not isinstance(cell, str):
      raise ValueError(f"{FLAG}: {file}, line {line} has no text in {text_column}; give it, or leave the line out")
    if not isinstance(label, str | int) or not str(label).strip():
      kind = "no label" if label in (None, "") or isinstance(label, str) else f"a {type(label).__name__} as label"
      raise ValueError(f"{FLAG}: {file}, line {line} has {kind} in {label_column}; give one, or leave the line out")
    if _SURROGATE.search(f"{cell}{label}"):
      raise ValueError(f"{FLAG}: {file}, line {line} has half a character, as in \\ud800; give both halves, or none")
    texts.append(cell)
    labels.append(str(label).strip())
  if not texts:
    raise ValueError(f"{FLAG}: {file} has no rows below its header; give it texts and labels")
  return Table(texts, labels)


def _column(file: Path, flag: str, name: str, columns: Sequence[str], usual: Sequence[str]) -> str:
  matching = [column for column in ([name] if name else usual) if column in columns]
  if not matching:
    asked = f"--config.data.{flag}={name}" if name else f"--config.data.{flag} is not given, and {' or '.join(usual)}"
    hint = nearest_hint(name, columns) if name else ""
    raise ValueError(f"{asked} is no column of {file}{hint}; choices: {', '.join(columns)}")
  count = columns.count(matching[0])
  if count > 1:
    raise ValueError(f"{FLAG}: {file} has {count} columns named {matching[0]}; rename all but one")
  return matching[0]


def _separated(file: Path, text: str) -> tuple[list[str], Rows]:
  csv.field_size_limit(_LONGEST)
  is_tsv = file.suffix.lower() == ".tsv"
  try:
    form = _form(text, is_tsv)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, **form)
    columns = [name.strip() for name in next(values for values in reader if values)]
  except (csv.Error, StopIteration) as error:
    raise ValueError(f"{FLAG}: {file} has no header ({error}); name its columns in the first line") from None

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

  return columns, rows()


def _form(text: str, is_tsv: bool) -> dict[str, Any]:
  """The delimiter and the quoting of a table, as arguments of csv.reader."""

  def fields(delimiter: str) -> int:
    return len(next(filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)), ()))

  usual = "\t" if is_tsv else ","
  delimiter = usual if fields(usual) > 1 else max((usual, *DELIMITERS), key=fields)
  is_literal = is_tsv and not _is_written_by_csv(text, delimiter)
  return {"delimiter": delimiter, "quoting": csv.QUOTE_NONE if is_literal else csv.QUOTE_MINIMAL}


def _is_written_by_csv(text: str, delimiter: str) -> bool:
  """Whether csv.writer makes this very text of the fields that csv.reader finds in it.

  Two rows that each have a quote without its partner read as one field with a line's end and a delimiter: not so.
  """
  try:
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter))
  except csv.Error:
    return False
  if any("\n" in field and delimiter in field for row in rows for field in row):
    return False
  for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=delimiter, quoting=quoting, lineterminator="\n").writerows(rows)
    if written.getvalue().replace("\r\n", "\n").strip("\n") == text.replace("\r\n", "\n").strip("\n"):
      return True
  return False


def _jsonl(file: Path, text: str) -> tuple[list[str], Rows]:
  rows = [(line, _object(file, line, row)) for line, row in enumerate(text.split("\n"), 1) if row.strip()]
  return list(rows[0][1]), iter(rows)


def _object(file: Path, line: int, row: str) -> dict[str, Any]:
  try:
    value = json.loads(row)
  except (json.JSONDecodeError, RecursionError) as error:
    raise ValueError(f"{FLAG}: {file}, line {line} is not JSON ({error}); give one object a line") from None
  if not isinstance(value, dict):
    raise ValueError(f"{FLAG}: {file}, line {line} is no JSON object; give one with text and label")
  return value
