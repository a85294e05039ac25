"""Texts with labels, for classification: SETS, any dataset of TFDS with a text and a label, the user's own files.

A batch is

  tokens int32 [B, T]     the class token, where the tokenizer has one, then the text; 0 after its end
  length int32 [B]        how many of them are the text's, 1 to T
  label int32 [B]         an index into `metadata["names"]`

Texts of more than T tokens lose their end; `metadata["truncated"]` counts them. An empty text is its class token alone,
or `unknown`, or the padding. Which splits are which: `labelled_sources`.
"""

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping

import numpy as np

from attention_lab.config import DataConfig
from attention_lab.data import controls
from attention_lab.data.dataset import Arrays, Dataset, digests
from attention_lab.data.labelled_sources import SETS, Labelled, Part, read_labelled
from attention_lab.data.tokenizer import SPECIALS, Tokenizer, restore_or_train, tokenizer_file

__all__ = ["SETS", "Reading", "Texts", "encoded", "load"]


@dataclasses.dataclass(frozen=True)
class Reading:
  """Settings of how texts are read; each field is a flag `--config.data.*` of its name."""

  tokenizer: str = "bpe"
  vocabulary: int = 8000  # ids, at most
  length: int = 128  # T, tokens per text
  text_column: str = ""  # "" = the only text, or `text` or `sentence` of a file
  label_column: str = ""  # "" = the only label, or `label` of a file


class Texts(Arrays):
  """A split of encoded texts that still knows them."""

  def __init__(self, arrays: Mapping[str, np.ndarray], texts: list[str]) -> None:
    super().__init__(arrays)
    self.texts = texts

  def describe(self, index: int) -> str:
    """A text as it was written."""
    return self.texts[index]


def load(
  data: DataConfig,
  workdir: str | os.PathLike,
  reading: Reading,
  tokenizer_from: str | os.PathLike = "",
  log: Callable[[str], None] | None = None,
) -> Dataset:
  """The labelled texts that a data configuration names.

  Args:
    data: `data.name` in `data.dir` (nothing named = SETS[0]), or `data.path` for the user's own tables.
    workdir: the tokenizer is restored from `workdir/tokenizer.json` where there is one, else taken from
      `tokenizer_from`, else trained on the texts of train with SPECIALS, and saved there; "" = nowhere.
    reading: the tokenizer, its vocabulary in ids, T in tokens, and the columns of text and label.
    tokenizer_from: another workdir whose tokenizer is taken over; "" = none.
    log: a function that is given a line on texts that are cut (default: standard error).

  Returns:
    A dataset of the arrays that the module describes. Controls, in accuracy on the test split: the largest class of
    train, and tf-idf with a logistic regression.

  Raises:
    ValueError: data, columns, length or tokenizer that do not fit; flag, file and line are named.
  """
  if reading.length < 2:
    raise ValueError(f"--config.data.length={reading.length} is less than 2; give the tokens per text")
  labelled = read_labelled(data, reading.text_column, reading.label_column, log)
  file = tokenizer_file(workdir)
  texts = labelled.splits["train"].texts
  tokenizer = restore_or_train(file, reading.tokenizer, texts, reading.vocabulary, SPECIALS, start=tokenizer_from)
  splits, truncated = {}, {}
  for split, part in labelled.splits.items():
    splits[split], truncated[split] = encoded(part, tokenizer, reading.length)
  if any(truncated.values()):
    _say(labelled, truncated, reading.length, log)
  tokenizer.save_new(file)
  metadata = _metadata(labelled, tokenizer) | {"length": reading.length, "truncated": truncated}
  train, test = labelled.splits["train"], labelled.splits["test"]
  lines = controls.of_texts(train.texts, train.labels, test.texts, test.labels)
  return Dataset(labelled.name, splits, digests(splits), metadata, lines)


def encoded(part: Part, tokenizer: Tokenizer, length: int) -> tuple[Texts, int]:
  """A split of texts in `length` tokens each, and how many texts were longer."""
  first = [tokenizer.special["class"]] if "class" in tokenizer.special else []
  nothing = np.array([tokenizer.special.get("unknown", tokenizer.end_of_text)][len(first) :], np.int32)
  rows = [ids if len(ids) else nothing for ids in tokenizer.encode_batch(part.texts)]
  tokens = np.zeros((len(rows), length), np.int32)
  tokens[:, : len(first)] = first
  sizes = np.array([len(ids) + len(first) for ids in rows], np.int32)
  for row, ids in zip(tokens, rows, strict=True):
    row[len(first) : len(first) + len(ids)] = ids[: length - len(first)]
  lengths = np.minimum(sizes, length).astype(np.int32)
  arrays = {"tokens": tokens, "length": lengths, "label": part.labels.astype(np.int32)}
  return Texts(arrays, part.texts), int((sizes > length).sum())


def _say(labelled: Labelled, truncated: Mapping[str, int], length: int, log: Callable[[str], None] | None) -> None:
  counts = ", ".join(f"{count} of {len(labelled.splits[split].texts)} in {split}" for split, count in truncated.items())
  line = f"{labelled.name}: texts longer than --config.data.length={length} tokens lose their end: {counts}"
  if log:
    log(line)
  else:
    print(line, file=sys.stderr, flush=True)


def _metadata(labelled: Labelled, tokenizer: Tokenizer) -> dict:
  labels = {split: np.bincount(part.labels, minlength=len(labelled.classes)) for split, part in labelled.splits.items()}
  return {
    "vocabulary": tokenizer.vocabulary,
    "tokenizer": tokenizer.kind,
    "special": dict(tokenizer.special),
    "classes": len(labelled.classes),
    "names": list(labelled.classes),
    "sizes": {split: len(part.texts) for split, part in labelled.splits.items()},
    "counts": {s: dict(zip(labelled.classes, counts.tolist(), strict=True)) for s, counts in labels.items()},
    "empty": {split: sum(not text.strip() for text in part.texts) for split, part in labelled.splits.items()},
    "origin": dict(labelled.origin),
    "chance": 1 / len(labelled.classes),
  }
