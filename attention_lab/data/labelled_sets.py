"""Labelled texts by split: a dataset of TFDS, or the user's own files.

Each split comes as published where it is. Where test is missing or has no labels (as in GLUE), the published validation
split is `test`; where validation is missing or taken, a tenth of train is: of each class, in order of a hash of the
text, so that equal texts stay together, and in PHRASED a sentence and its phrases. One file alone is cut 80 / 10 / 10
in the same way. `origin` says which.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from attention_lab.config import DataConfig
from attention_lab.data import labelled_files, phrases, prepared
from attention_lab.data.dataset import SPLITS, validate_name, validate_path

SETS = ("glue/sst2", "sst2", "imdb_reviews")
ALIASES = {"sst2": "glue/sst2"}
PHRASED = ("glue/sst2",)  # rows are sentences and their phrases, which stay together
HELD_OUT = 0.1  # of each class
_PUBLISHED, _TENTH = "as published", "a tenth of train, by content"
_PHRASES = ", phrases with their sentence"
_STOOD_IN = "the published validation split (the published test split has no labels)"


@dataclasses.dataclass(frozen=True)
class Part:
  """Texts and the numbers of their classes, int32 [N]; -1 = without label."""

  texts: list[str]
  labels: np.ndarray

  def rows(self, places: np.ndarray) -> "Part":
    """The texts at some places."""
    return Part([self.texts[i] for i in places], self.labels[places])


@dataclasses.dataclass(frozen=True)
class Labelled:
  """Labelled texts by SPLITS, names of their classes, and where each split comes from."""

  name: str
  given: str  # the flag that named them
  classes: list[str]
  splits: Mapping[str, Part]
  origin: Mapping[str, str]


def labelled(
  data: DataConfig, text_column: str = "", label_column: str = "", log: Callable[[str], None] | None = None
) -> Labelled:
  """The texts that `data.name` or `data.path` means; columns "" are the only ones of their kind.

  Raises ValueError, naming the flag, for a dataset that is not there or does not fit, fewer than two classes, labels
  out of range or unknown to train, an empty split.
  """
  name = validate_name(data, SETS, allow_other=True)
  if name:
    if name not in SETS:
      prepared.check(name, data.dir, SETS)
    name = ALIASES.get(name, name)
    given = f"--config.data.name={name}"
    classes, parts = _published(name, data.dir, (text_column, label_column), log)
  else:
    name, given = validate_path(data.path).resolve().name, f"{labelled_files.FLAG}={data.path}"
    classes, parts = _files(data.path, text_column, label_column)
  splits, origin = _resolved(parts, name in PHRASED)
  found = Labelled(name, given, classes, splits, origin)
  _check(found)
  return found


def stratified(part: Part, held: Sequence[str], phrased: bool = False) -> dict[str, Part]:
  """Cuts a tenth of each class for each name in `held` off, at least one of three; the rest is "train".

  Equal texts, and if `phrased` a text and the runs of its words, go where the first of them goes, even if their labels
  differ.
  """
  texts = phrases.longest_containing(part.texts) if phrased else part.texts
  keys = np.array([hashlib.sha256(text.strip().encode()).hexdigest() for text in texts])
  unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
  places = np.full(len(unique), "train", object)
  for label in np.unique(part.labels[first]):
    members = np.flatnonzero(part.labels[first] == label)
    size = max(round(HELD_OUT * len(members)), 1) if len(members) > len(held) else 0
    for number, name in enumerate(held):
      places[members[number * size : (number + 1) * size]] = name
  return {name: part.rows(np.flatnonzero(places[inverse] == name)) for name in ("train", *held)}


def _resolved(parts: Mapping[str, Part], phrased: bool) -> tuple[dict[str, Part], dict[str, str]]:
  """The three splits and where each comes from; `parts` has "train", or "" for all in one."""
  if "" in parts:
    return stratified(parts[""], ("test", "validation")), dict.fromkeys(SPLITS, "80 / 10 / 10, by content")
  there = {split: part for split, part in parts.items() if not len(part.labels) or (part.labels >= 0).any()}
  origin = dict.fromkeys(SPLITS, _PUBLISHED)
  if "test" not in there and "validation" in there:
    there["test"] = there.pop("validation")
    origin["test"] = _STOOD_IN if "test" in parts else "the published validation split (there is no test split)"
  held = [split for split in ("test", "validation") if split not in there]
  if held:
    there |= stratified(there["train"], held, phrased)
    origin |= dict.fromkeys(held, _TENTH + _PHRASES * phrased) | {
      "train": f"as published, without {' and '.join(held)}"
    }
  return {split: there[split] for split in SPLITS}, origin


def _published(
  name: str, directory: str, columns: Sequence[str], log: Callable[[str], None] | None
) -> tuple[list[str], dict[str, Part]]:
  text, label = (_feature(name, directory, *wanted) for wanted in zip(("text", "label"), columns, strict=True))
  sizes = prepared.splits(name, directory)
  if "train" not in sizes:
    raise ValueError(f"--config.data.name={name} has no split train; it has {', '.join(sizes) or 'none'}")
  classes, parts = prepared.class_names(name, directory, label), {}
  for split in (split for split in SPLITS if split in sizes):
    found = prepared.columns(name, split, directory, [text, label], log)
    parts[split] = Part(list(found[text]), np.asarray(found[label], np.int32))
    _check_range(name, split, label, parts[split].labels, len(classes))
  return classes, parts


def _feature(name: str, directory: str, kind: str, wanted: str) -> str:
  """The feature of a kind that is meant: the one named, or the only one."""
  if not wanted:
    return prepared.only(name, directory, kind)
  fitting = [feature for feature, found in prepared.features(name, directory).items() if found == kind]
  if wanted not in fitting:
    listed = ", ".join(fitting) or "none"
    raise ValueError(f"--config.data.{kind}_column={wanted} is no {kind} feature of {name}; choices: {listed}")
  return wanted


def _check_range(name: str, split: str, feature: str, labels: np.ndarray, classes: int) -> None:
  wrong = np.flatnonzero((labels < 0) | (labels >= classes))
  if len(wrong) and not (split != "train" and (labels == -1).all()):
    place = f"example {wrong[0]} of {split} has {feature} {labels[wrong[0]]}"
    raise ValueError(f"--config.data.name={name}: {place}, out of range 0 to {classes - 1}; prepare the dataset again")


def _files(path: str, text_column: str, label_column: str) -> tuple[list[str], dict[str, Part]]:
  tables = labelled_files.read(path, text_column, label_column)
  first = tables.get("train", next(iter(tables.values())))
  classes = sorted(set(first.labels), key=_by_number if all(map(_is_number, first.labels)) else None)
  numbers = {name: number for number, name in enumerate(classes)}
  for split, table in tables.items():
    new = sorted(set(table.labels) - numbers.keys())
    if new:
      raise ValueError(f"{labelled_files.FLAG}={path}: label {new[0]} of {split} is not in train; add or remove it")
  parts = {s: Part(t.texts, np.array([numbers[label] for label in t.labels], np.int32)) for s, t in tables.items()}
  return classes, parts


def _is_number(label: str) -> bool:
  return label.removeprefix("-").isdecimal()


def _by_number(label: str) -> tuple[int, str]:
  return int(label), label


def _check(found: Labelled) -> None:
  known = np.unique(found.splits["train"].labels)
  if len(found.classes) < 2 or len(known) < 2:
    raise ValueError(f"{found.given} has {len(known)} classes in train; give texts of two or more")
  for split, part in found.splits.items():
    if not part.texts:
      raise ValueError(f"{found.given}: the {split} split is empty; give more texts, or that split")
    new = np.setdiff1d(part.labels, known)
    if len(new):
      raise ValueError(f"{found.given}: label {found.classes[new[0]]} of {split} is not in train; add or remove it")
    if not any(text.strip() for text in part.texts):
      raise ValueError(f"{found.given}: all {len(part.texts)} texts of {split} are empty; give texts")
