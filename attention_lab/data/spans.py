"""Extractive question answering: the answer is a span of the context. SQuAD, XQuAD, and what has their features.

A row is class, question, separator, a window of the context, separator. Windows start every half of their length, so
that an answer of up to half a window lies whole in one of them; a window without it has 0, 0, the class token. Words
and punctuation are split first, in lower case, and encoded one by one: spans begin and end with a word, and their text
is cut from the context itself. A batch is

  tokens int32 [B, T]    types int32 [B, T], 1 from the context on     length int32 [B]
  start, end int32 [B]   first and last token of the answer            example int32 [B], the row's question

`questions.py` says which questions are in which split. `data.folds` deals the articles of train and validation.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from attention_lab.config import DataConfig
from attention_lab.data import span_metrics
from attention_lab.data.dataset import Arrays, Dataset, Lazy, digests
from attention_lab.data.labelled import Reading
from attention_lab.data.questions import Question, cut, published, similar_sentence
from attention_lab.data.tokenizer import Tokenizer, restore_or_train, tokenizer_file

SPECIALS = ("class", "separator", "unknown")
QUESTION = 64  # most tokens of a question, as in BERT; half of a row where that is less
_WORD = re.compile(r"\w+|[^\w\s]")


class Spans(Arrays):
  """Rows of windows, with the questions and contexts that they were cut from."""

  def __init__(
    self,
    arrays: Mapping[str, np.ndarray],
    questions: Sequence[Question],
    places: Mapping[str, np.ndarray],
    first: Int[np.ndarray, "N"],
  ) -> None:
    """`places[context]`: the characters [tokens, 2] of each of its tokens; `first`: the first token of each window."""
    super().__init__(arrays)
    self.questions = tuple(questions)
    self.answers = tuple(question.answers for question in questions)
    self._first, self._places = first, places

  def describe(self, index: int) -> str:
    """The question, then the part of the context that the row holds."""
    window = self.text(index, self._context(index).start, self._context(index).stop - 1)
    return f"{self.questions[self.arrays['example'][index]].text} | {window}"

  def text(self, index: int, start: int, end: int) -> str:
    """The characters of the context from token `start` to token `end` (inclusive) of a row; "" for 0, 0.

    Raises ValueError for a span that is not inside the row's window.
    """
    if start == end == 0:
      return ""
    inside = self._context(index)
    if not inside.start <= start <= end < inside.stop:
      raise ValueError(f"tokens {start} to {end} are no span of row {index}, whose context is {inside}")
    shift = int(self._first[index]) - inside.start
    context = self.questions[self.arrays["example"][index]].context
    return context[self._places[context][start + shift, 0] : self._places[context][end + shift, 1]]

  def predictions(
    self, start: Float[np.ndarray, "N T"], end: Float[np.ndarray, "N T"], longest: int = span_metrics.LONGEST
  ) -> list[str]:
    """The answer to each question of the split, from the logits of all its rows: the best span of its windows."""
    columns = np.arange(start.shape[1])
    valid = (self.arrays["types"] == 1) & (columns < self.arrays["length"][:, None] - 1)
    starts, ends, scores = span_metrics.best_span(start, end, valid, longest)
    order = np.lexsort((-scores, self.arrays["example"]))
    _, first = np.unique(self.arrays["example"][order], return_index=True)
    return [self.text(int(row), int(starts[row]), int(ends[row])) for row in order[first]]

  def _context(self, index: int) -> range:
    return range(int(self.arrays["types"][index].argmax()), int(self.arrays["length"][index]) - 1)


def load(
  data: DataConfig, workdir: str | os.PathLike, reading: Reading, tokenizer_from: str | os.PathLike = ""
) -> Dataset:
  """The questions of a dataset of TFDS, in windows of their contexts.

  Args:
    data: `data.name` ("" = squad) in `data.dir`; `data.folds` and `data.fold`.
    workdir: the tokenizer is restored from `workdir/tokenizer.json`, else taken from `tokenizer_from`, else trained on
      train, and saved there; "" = nowhere.
    reading: the tokenizer, its vocabulary in ids, and T in tokens.
    tokenizer_from: another workdir whose tokenizer is taken over; "" = none.

  Returns:
    A dataset of the arrays that the module describes. Control, in F1 on test: the sentence of the context that shares
    most words with the question.

  Raises:
    ValueError: a dataset without the features of `questions` or with answers that are not in their contexts, a path, a
      short length; the flag is named.
  """
  name = data.name or "squad"
  if data.path:
    raise ValueError(f"--config.data.path={data.path}: questions are read from --config.data.dir; leave the path out")
  if reading.length < 8:
    raise ValueError(f"--config.data.length={reading.length} has no room for question and context; give 8 or more")
  parts = cut(published(name, data.dir), data.folds, data.fold)
  file = tokenizer_file(workdir)
  spaced = (" ".join(word for word, _ in _split_words(text)) for text in _texts(parts["train"]))
  tokenizer = restore_or_train(file, reading.tokenizer, spaced, reading.vocabulary, SPECIALS, start=tokenizer_from)
  encoded = {split: encode(part, tokenizer) for split, part in parts.items()}
  splits = {split: rows(part, encoded[split], tokenizer.special, reading.length) for split, part in parts.items()}
  tokenizer.save_new(file)
  metadata = {
    "vocabulary": tokenizer.vocabulary,
    "special": dict(tokenizer.special),
    "length": reading.length,
    "truncated": {split: _truncated(part, encoded[split], reading.length) for split, part in parts.items()},
  }
  control = {"F1 of the most similar sentence": lambda: similar_sentence(parts["test"])}
  return Dataset(name, splits, digests(splits), metadata | _metadata(splits, data), Lazy(control))


def _metadata(splits: Mapping[str, Spans], data: DataConfig) -> dict[str, Any]:
  metadata = {
    "types": 2,
    "sizes": {split: len(part) for split, part in splits.items()},
    "questions": {split: len(part.questions) for split, part in splits.items()},
    "articles": {split: len({question.article for question in part.questions}) for split, part in splits.items()},
    "without_answer": {split: int((part.arrays["start"] == 0).sum()) for split, part in splits.items()},
    "chance": None,
  }
  return metadata | ({"fold": {"folds": data.folds, "fold": data.fold}} if data.folds else {})


def encode(questions: Sequence[Question], tokenizer: Tokenizer) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """By context and question text: int32 ids [n], and int64 [n, 2], the characters from and to which each stands."""
  split_texts = {text: _split_words(text) for text in _texts(questions)}
  distinct = list({word: None for spans in split_texts.values() for word, _ in spans})
  encodings = tokenizer.encode_batch(distinct)
  unknown = np.array([tokenizer.special["unknown"]], np.int32)
  ids = {word: encoding if len(encoding) else unknown for word, encoding in zip(distinct, encodings, strict=True)}
  encoded = {}
  for text, spans in split_texts.items():
    parts = [ids[word] for word, _ in spans]
    offsets = np.array([span for _, span in spans], np.int64).reshape(-1, 2)
    encoded[text] = (np.concatenate([unknown[:0], *parts]), np.repeat(offsets, [len(part) for part in parts], axis=0))
  return encoded


def rows(
  questions: Sequence[Question],
  encoded: Mapping[str, tuple[np.ndarray, np.ndarray]],
  special: Mapping[str, int],
  length: int,
) -> Spans:
  """The windows of all questions, T=`length`; see the module."""
  heads, windows, columns = [], [], []
  for number, question in enumerate(questions):
    asked = encoded[question.text][0][: _room(length)].tolist()
    heads.append([special["class"], *asked, special["separator"]])
    ids, places = encoded[question.context]
    answer = np.flatnonzero((places[:, 1] > question.begin) & (places[:, 0] < question.end))
    room = length - len(heads[-1]) - 1
    step = max(room // 2, 1)
    for begin in range(0, max(len(ids) - room, 0) + step, step):
      windows.append([*ids[begin : begin + room].tolist(), special["separator"]])
      shift = len(heads[-1]) - begin
      contained = len(answer) and begin <= answer[0] and answer[-1] < begin + room
      columns.append((*((answer[0] + shift, answer[-1] + shift) if contained else (0, 0)), number, begin))
  start, end, example, first = np.array(columns, np.int32).reshape(-1, 4).T
  tokens, types = np.zeros((2, len(windows), length), np.int32)
  lengths = np.zeros(len(windows), np.int32)
  for row, window in enumerate(windows):
    head = heads[example[row]]
    lengths[row] = len(head) + len(window)
    tokens[row, : lengths[row]], types[row, len(head) : lengths[row]] = [*head, *window], 1
  arrays = {"tokens": tokens, "types": types, "length": lengths, "start": start, "end": end, "example": example}
  return Spans(arrays, questions, {text: places for text, (_, places) in encoded.items()}, first)


def _room(length: int) -> int:
  return min(QUESTION, length // 2 - 2)


def _truncated(questions: Sequence[Question], encoded: Mapping[str, tuple], length: int) -> int:
  return sum(len(encoded[question.text][0]) > _room(length) for question in questions)


def _texts(questions: Iterable[Question]) -> list[str]:
  return list(dict.fromkeys(text for question in questions for text in (question.context, question.text)))


def _split_words(text: str) -> list[tuple[str, tuple[int, int]]]:
  """Words and punctuation in lower case, with the characters from and to which they stand."""
  return [(word.group().lower(), word.span()) for word in _WORD.finditer(text)]
