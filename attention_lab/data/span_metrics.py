"""Exact match and F1 of answers by the official rule of SQuAD v1.1, and the best span of two rows of logits.

Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", and its `evaluate-v1.1.py`:
answers are compared in lower case, without ASCII punctuation, without the words a, an and the, and with single spaces;
a question's score is the highest over its answers. All scores are fractions, 0 to 1 (there: percent).
"""

import collections
import re
import string
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

LONGEST = 30  # tokens of an answer, as in BERT's and most other published scores
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize(text: str) -> str:
  """Lower case, no punctuation, no articles, single spaces, in this order."""
  return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
  """1 if both are the same when normalized, else 0."""
  return float(normalize(prediction) == normalize(answer))


def f1(prediction: str, answer: str) -> float:
  """The harmonic mean of precision and recall over the normalized words, repetitions counted; 0 if none is shared."""
  predicted, expected = normalize(prediction).split(), normalize(answer).split()
  shared = sum((collections.Counter(predicted) & collections.Counter(expected)).values())
  return 2 * shared / (len(predicted) + len(expected)) if shared else 0.0


def best(metric: Callable[[str, str], float], prediction: str, answers: Sequence[str]) -> float:
  """The highest `metric` over the answers; ValueError for a question without answers."""
  if not answers:
    raise ValueError("a question has no answers to be compared with; give it at least one")
  return max(metric(prediction, answer) for answer in answers)


def evaluate(predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> dict[str, float]:
  """`{"exact_match", "f1"}`: means over the questions; prediction i is compared with all of answers i.

  Raises ValueError for no predictions, unequal numbers, or a question without answers.
  """
  if not predictions or len(predictions) != len(answers):
    raise ValueError(f"{len(predictions)} predictions for {len(answers)} questions; give one for each, at least one")
  pairs = list(zip(predictions, answers, strict=True))
  return {
    "exact_match": sum(best(exact_match, *pair) for pair in pairs) / len(pairs),
    "f1": sum(best(f1, *pair) for pair in pairs) / len(pairs),
  }


def best_span(
  start_logits: Float[np.ndarray, "N T"],
  end_logits: Float[np.ndarray, "N T"],
  valid: Bool[np.ndarray, "N T"],
  longest: int = LONGEST,
) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"], Float[np.ndarray, "N"]]:
  """Start, end (inclusive) and score of each row's best span: start logit + end logit, of 1 to `longest` tokens.

  Both ends lie on `valid` positions (the context's). Among equals the shortest wins, then the first. A row without a
  valid position gives 0, 0 and −inf. Raises ValueError for longest < 1.
  """
  if longest < 1:
    raise ValueError(f"longest={longest} is less than 1; give the most tokens of an answer")
  rows, width = np.arange(len(start_logits)), start_logits.shape[1]
  starts = np.where(valid, start_logits, -np.inf)
  ends = np.where(valid, end_logits, -np.inf)
  start, end = np.zeros(len(rows), np.int32), np.zeros(len(rows), np.int32)
  score = np.full(len(rows), -np.inf, starts.dtype)
  for extra in range(min(longest, width)):
    sums = starts[:, : width - extra] + ends[:, extra:]
    first = sums.argmax(axis=1)
    better = sums[rows, first] > score
    start[better], end[better] = first[better], first[better] + extra
    score[better] = sums[rows, first][better]
  return start, end, score
