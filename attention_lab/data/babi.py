"""The bAbI tasks (Weston et al. 2015): a question over a story, answered by one of the answers seen; 20 tasks at once.

An example is class, question, separator, then the story in its own order, as the published Transformer reads it
(Dehghani et al. 2019; tensor2tensor's `babi_qa`, joint training): words in lower case and punctuation are tokens. A
story that does not fit loses its oldest sentences. Supporting facts are not used. A batch is

  tokens int32 [B, T]    0 padding, 1 class, 2 separator, 3 unknown, then the words of train by frequency
  types int32 [B, T]     0 in the question, k in the k-th most recent sentence, at most TYPES-1
  length int32 [B]       label int32 [B], an answer; a list such as `apple,football` is one     group int32 [B], 1 … 20

By sentences, as memory networks read it (Sukhbaatar et al. 2015), T counts the question, which is in front, and the
sentences: tokens int32 [B, T, W] are their words, padded with 0, without class and separator.

Validation is 100 of the 1,000 training questions of each task: whole stories, in order of a hash of their text, until
there are as many; `data.folds` deals the stories of each task instead. A few questions on equal beginnings of different
stories remain in both (`metadata["repeated"]`), as in the published test.
"""

import collections
import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from attention_lab.config import DataConfig
from attention_lab.data import prepared
from attention_lab.data.dataset import SPLITS, Arrays, Dataset, Lazy, digests, validate_name

TASKS = (
  *("one supporting fact", "two supporting facts", "three supporting facts", "two-argument relations"),
  *("three-argument relations", "yes-no questions", "counting", "lists and sets", "simple negation"),
  *("indefinite knowledge", "basic coreference", "conjunction", "compound coreference", "time reasoning"),
  *("basic deduction", "basic induction", "positional reasoning", "size reasoning", "path finding"),
  "agents' motivations",
)
COLUMNS = ("answer", "question", "story", "task")
SPECIAL = {"class": 1, "separator": 2, "unknown": 3}
TYPES = 64  # the question and 63 sentences: those of nearly all stories
HELD_OUT = 0.1  # fraction of each task's training questions


class Stories(Arrays):
  """A split of questions over stories that still knows their texts."""

  def __init__(self, arrays: Mapping[str, np.ndarray], texts: Sequence[str]) -> None:
    super().__init__(arrays)
    self._texts = tuple(texts)

  def describe(self, index: int) -> str:
    """The sentences that the example has kept, then its question."""
    return self._texts[index]


def load(data: DataConfig, task: int = 0, sentences: bool = False) -> Dataset:
  """The bAbI tasks, from the TFDS dataset `babi`; the test split is the published one.

  Args:
    data: `data.dir` holds the dataset; `data.length` is T in tokens or sentences; `data.folds` and `data.fold`.
    task: 1 … 20, or 0 for all of them jointly.
    sentences: True makes an example of sentences in place of words.

  Returns:
    A dataset of the arrays that the module describes. Answers of any split are classes, so that an answer that train
    lacks (`metadata["unseen"]`) counts as wrong. Control, in accuracy: the most frequent answer of train to each task.

  Raises:
    ValueError: a bad name, a path, no such task or fold, a length that a question does not fit.
  """
  if not 0 <= task <= len(TASKS):
    raise ValueError(f"--config.data.task={task} is no task of bAbI; give 1 to {len(TASKS)}, or 0 for all")
  if not validate_name(data, ("babi",)):
    raise ValueError(f"--config.data.path={data.path}: bAbI is read from --config.data.dir; leave the path out")
  published = {split: prepared.columns("babi", split, data.dir, COLUMNS) for split in ("train", "test")}
  rows = {split: _rows(columns, task, sentences) for split, columns in published.items()}
  held_out = _held_out(rows["train"], data.folds, data.fold)
  parts = {
    "train": [row for row, held in zip(rows["train"], held_out, strict=True) if not held],
    "validation": [row for row, held in zip(rows["train"], held_out, strict=True) if held],
    "test": rows["test"],
  }
  vocabulary = _vocabulary(row["words"] for row in parts["train"])
  answers = sorted({row["answer"] for part in parts.values() for row in part})
  width = max(len(text) for part in parts.values() for row in part for text in (row["asked"], *row["sentences"]))
  encode = functools.partial(_encoded, vocabulary, width if sentences else 0)
  splits = {split: _split(part, data.length, encode, answers) for split, part in parts.items()}
  metadata = _metadata(parts, data.length, vocabulary) | {
    "classes": len(answers),
    "names": answers,
    "chance": 1 / len(answers),
  }
  metadata |= {"fold": {"folds": data.folds, "fold": data.fold}} if data.folds else {}
  control = {"most frequent answer per task": lambda: _most_frequent(splits["train"], splits["test"])}
  return Dataset(f"babi/{task}" if task else "babi", splits, digests(splits), metadata, Lazy(control))


def _rows(columns: Mapping[str, Any], task: int, sentences: bool) -> list[dict[str, Any]]:
  """The questions of a task, in words; `front` is what the question takes of T, `sizes` what each sentence takes."""
  rows = []
  for answer, question, story, number in zip(*(columns[name] for name in COLUMNS), strict=True):
    if task in (0, int(number)):
      asked, told = _split_words(question), [_split_words(sentence) for sentence in story]
      text = {"answer": answer, "question": question, "story": tuple(story), "group": int(number)}
      text |= {"asked": asked, "sentences": told, "words": [*itertools.chain(asked, *told)]}
      sizes = [1] * len(told) if sentences else [len(sentence) for sentence in told]
      rows.append(text | {"front": 1 if sentences else len(asked) + 2, "sizes": sizes})
  return rows


def _split_words(text: str) -> list[str]:
  return re.findall(r"\w+|[^\w\s]", text.lower())


def _held_out(rows: Sequence[Mapping[str, Any]], folds: int, fold: int) -> np.ndarray:
  """The mask of validation rows; questions on one growing story share a key, the hash of its last state."""
  if (folds or fold) and not (folds >= 2 and 0 <= fold < folds):
    flags = f"--config.data.folds={folds} with --config.data.fold={fold}"
    raise ValueError(f"{flags}: give 2 or more folds, and a fold from 0 to folds-1; or 0 and 0")
  keys: list[str] = []
  text: tuple = ()
  for row, after in zip(rows[::-1], [None, *rows[:0:-1]], strict=True):
    grows = after is not None and after["group"] == row["group"] and after["story"][: len(row["story"])] == row["story"]
    text = text if grows else row["story"]
    keys.append(hashlib.sha256("\n".join((str(row["group"]), *text)).encode()).hexdigest())
  keys.reverse()
  held: set[str] = set()
  for group in {row["group"] for row in rows}:
    sizes = collections.Counter(key for key, row in zip(keys, rows, strict=True) if row["group"] == group)
    wanted = max(round(HELD_OUT * sizes.total()), 1)
    held.update(sorted(sizes)[fold::folds] if folds else ())
    for key in () if folds else sorted(sizes):
      if wanted > 0:
        held.add(key)
        wanted -= sizes[key]
  return np.array([key in held for key in keys])


def _vocabulary(texts: Iterable[Sequence[str]]) -> dict[str, int]:
  counts = collections.Counter(word for text in texts for word in text)
  ordered = sorted(counts, key=lambda word: (-counts[word], word))
  return {word: number for number, word in enumerate(ordered, start=1 + max(SPECIAL.values()))}


def _encoded(
  vocabulary: Mapping[str, int], width: int, row: Mapping[str, Any], sentences: Sequence[Sequence[str]]
) -> np.ndarray:
  """The ids of the question and the sentences kept: [t], or, by sentences of at most `width` words, [t, width]."""
  code = lambda text: [vocabulary.get(word, SPECIAL["unknown"]) for word in text]
  if width:
    return np.array([code(text) + [0] * (width - len(text)) for text in (row["asked"], *sentences)])
  asked = [SPECIAL["class"], *code(row["asked"]), SPECIAL["separator"]]
  return np.array([*asked, *code(itertools.chain(*sentences))])


def _split(
  rows: Sequence[Mapping[str, Any]], length: int, encode: Callable[..., np.ndarray], answers: Sequence[str]
) -> Stories:
  encoded, types = [], np.zeros((len(rows), length), np.int32)
  texts = []
  for number, row in enumerate(rows):
    dropped = _dropped(row, length)
    sentences, sizes = row["sentences"][dropped:], row["sizes"][dropped:]
    encoded.append(encode(row, sentences))
    ages = np.minimum(np.arange(len(sentences), 0, -1), TYPES - 1)
    types[number, row["front"] : len(encoded[-1])] = np.repeat(ages, sizes)
    texts.append(" ".join([*row["story"][dropped:], row["question"]]))
  tokens = np.zeros((len(rows), length, *encoded[0].shape[1:]), np.int32)
  for number, ids in enumerate(encoded):
    tokens[number, : len(ids)] = ids
  lengths = np.array([len(ids) for ids in encoded], np.int32)
  number_of = {answer: number for number, answer in enumerate(answers)}
  label = np.array([number_of[row["answer"]] for row in rows], np.int32)
  group = np.array([row["group"] for row in rows], np.int32)
  return Stories({"tokens": tokens, "types": types, "length": lengths, "label": label, "group": group}, texts)


def _dropped(row: Mapping[str, Any], length: int) -> int:
  """The number of the oldest sentences that do not fit beside the question."""
  room = length - row["front"]
  if room < 0:
    asked = f"the question {row['question']!r} takes {row['front']}"
    raise ValueError(f"--config.data.length={length} is too short: {asked} tokens; give at least as many")
  sizes = np.cumsum(row["sizes"][::-1])
  return len(sizes) - int(np.searchsorted(sizes, room, side="right"))


def _metadata(parts: Mapping[str, list], length: int, vocabulary: Mapping[str, int]) -> dict[str, Any]:
  known = {(row["group"], row["story"], row["question"]) for row in parts["train"]}
  answers = {row["answer"] for row in parts["train"]}
  twice = {s: sum((row["group"], row["story"], row["question"]) in known for row in parts[s]) for s in SPLITS[1:]}
  longest = max(row["front"] + sum(row["sizes"]) for part in parts.values() for row in part)
  return {
    "vocabulary": 1 + max(SPECIAL.values()) + len(vocabulary),
    "special": dict(SPECIAL),
    "types": TYPES,
    "groups": {str(number): name for number, name in enumerate(TASKS, start=1)},
    "length": length,
    "longest": longest,
    "sizes": {split: len(part) for split, part in parts.items()},
    "truncated": {split: sum(_dropped(row, length) > 0 for row in part) for split, part in parts.items()},
    "unseen": {s: sum(row["answer"] not in answers for row in parts[s]) for s in SPLITS[1:]},
    "repeated": twice,
  }


def _most_frequent(train: Arrays, test: Arrays) -> float:
  answers, groups = train.arrays["label"], train.arrays["group"]
  guess = {group: np.bincount(answers[groups == group]).argmax() for group in np.unique(groups)}
  right = [guess.get(group) == label for group, label in zip(test.arrays["group"], test.arrays["label"], strict=True)]
  return float(np.mean(right))
