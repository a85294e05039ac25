"""Questions about contexts, as SQuAD has them: read from TFDS, and cut into splits by article.

A dataset of train and validation alone has its validation as test, since the real one is secret, and a tenth of
train's articles as validation. One of a single split (XQuAD) is cut by article, 60 / 20 / 20: enough to prove code, not
to compare models. Articles go by a hash of their title; where there are no titles, each context is an article.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from attention_lab.data import prepared, span_metrics
from attention_lab.data.dataset import SPLITS

FEATURES = ("answers", "context", "question")


@dataclasses.dataclass(frozen=True)
class Question:
  """One question of the dataset, and where its first answer stands in the context."""

  text: str
  context: str
  answers: tuple[str, ...]
  article: str
  begin: int  # first character of the answer
  end: int  # the one after its last


def published(name: str, directory: str) -> dict[str, list[Question]]:
  """Every question of a prepared dataset, by its own splits, an answer beginning where the dataset says.

  Raises ValueError for a dataset without FEATURES, a question without answer, an answer that is not in its place.
  """
  kinds = prepared.features(name, directory)
  missing = [feature for feature in FEATURES if feature not in kinds]
  if missing:
    needed = f"{', '.join(FEATURES)} (and title, where articles have one)"
    raise ValueError(f"--config.data.name={name} has no feature {missing[0]}; questions need {needed}")
  names = [*FEATURES, *({"title"} & kinds.keys())]
  questions = {}
  for split in prepared.splits(name, directory):
    columns = prepared.columns(name, split, directory, names)
    texts = zip(columns["question"], columns["context"], columns["answers"], strict=True)
    titles = columns.get("title", columns["context"])
    questions[split] = [_question(name, *text, title) for text, title in zip(texts, titles, strict=True)]
  return questions


def _question(name: str, text: str, context: str, answers: Mapping[str, Sequence], article: str) -> Question:
  if not len(answers["text"]):
    raise ValueError(f"--config.data.name={name}: {text!r} has no answer; questions must have one, as in SQuAD v1.1")
  begin, answer = int(answers["answer_start"][0]), answers["text"][0]
  if context[begin : begin + len(answer)] != answer:
    raise ValueError(f"--config.data.name={name}: the answer {answer!r} to {text!r} does not start at {begin}; mend it")
  return Question(text, context, tuple(answers["text"]), article, begin, begin + len(answer))


def cut(published: Mapping[str, Sequence[Question]], folds: int = 0, fold: int = 0) -> dict[str, list[Question]]:
  """Questions by SPLITS, whole articles together; see the module.

  With `folds`, every `folds`-th article of train and validation is validation, from number `fold`. Raises ValueError
  for a number of folds or a fold that is none, and for too few articles.
  """
  parts = {split: list(members) for split, members in published.items()}
  if "train" not in parts or len(parts) == 1:
    members = [question for part in parts.values() for question in part]
    parts["test"], rest = _held_out(members, 0.2)
    parts["validation"], parts["train"] = _held_out(rest, 0.25)
  elif "test" not in parts or "validation" not in parts:
    parts["test"] = parts.pop("test", []) or parts.pop("validation")
    parts["validation"], parts["train"] = _held_out(parts["train"], 0.1)
  if folds or fold:
    both = parts["train"] + parts["validation"]
    articles = _ordered(both)
    if not 0 <= fold < folds or not 2 <= folds <= len(articles):
      asked = f"--config.data.folds={folds} with --config.data.fold={fold}"
      raise ValueError(f"{asked}: give 2 to {len(articles)} folds (articles), and a fold from 0; or 0 and 0")
    held = set(articles[fold::folds])
    parts["train"] = [question for question in both if question.article not in held]
    parts["validation"] = [question for question in both if question.article in held]
  for split in SPLITS:
    if not parts[split]:
      raise ValueError(
        f"--config.data.name: the {split} split has no questions; one split needs 3 articles, two need 2"
      )
  return {split: parts[split] for split in SPLITS}


def similar_sentence(questions: Sequence[Question]) -> float:
  """Mean F1 of the sentence that shares most normalized words with the question, the first of those."""
  scores = []
  for question in questions:
    asked = set(span_metrics.normalize(question.text).split())
    sentences = re.split(r"(?<=[.!?])\s+", question.context)
    shared = [len(asked & set(span_metrics.normalize(sentence).split())) for sentence in sentences]
    answer = sentences[int(np.argmax(shared))]
    scores.append(span_metrics.best(span_metrics.f1, answer, question.answers))
  return float(np.mean(scores))


def _ordered(questions: Iterable[Question]) -> list[str]:
  """The articles, in order of a hash."""
  return sorted({q.article for q in questions}, key=lambda article: hashlib.sha256(article.encode()).digest())


def _held_out(questions: Sequence[Question], part: float) -> tuple[list[Question], list[Question]]:
  articles = _ordered(questions)
  held = set(articles[: max(round(part * len(articles)), 1)])
  return [q for q in questions if q.article in held], [q for q in questions if q.article not in held]
