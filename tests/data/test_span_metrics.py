import numpy as np
import pytest

from attention_lab.data import span_metrics


@pytest.mark.parametrize(
  ("text", "normal"),
  [
    ("The Eiffel Tower.", "eiffel tower"),
    ("  an   apple,\ta day ", "apple day"),
    ("Theatre of a\nthousand", "theatre of thousand"),
    ("U.S.A.", "usa"),
    ("the-end", "theend"),
    ("$5,000 (1999)", "5000 1999"),
    ("“quoted”", "“quoted”"),
    ("A.", ""),
  ],
)
def test_normalize_removes_case_ascii_punctuation_articles_and_spaces_in_the_official_order(text, normal):
  assert span_metrics.normalize(text) == normal


@pytest.mark.parametrize(
  ("prediction", "answer", "exact", "overlap"),
  [
    ("the Denver Broncos", "Denver Broncos!", 1, 1),
    ("Denver Broncos", "Broncos", 0, 2 / 3),  # precision 1/2, recall 1
    ("in Santa Clara, California", "Santa Clara", 0, 2 / 3),  # 1/2 and 1
    ("one two two", "two two two", 0, 2 / 3),  # two shared of three and three
    ("red green blue", "green yellow", 0, 2 / 5),  # 1/3 and 1/2
    ("cat", "dog", 0, 0),
    ("", "dog", 0, 0),
    ("the", "a", 1, 0),  # both empty: equal, and by the rule of v1.1 without a shared word
  ],
)
def test_exact_match_and_f1_equal_hand_computed_values(prediction, answer, exact, overlap):
  assert span_metrics.exact_match(prediction, answer) == exact
  assert span_metrics.f1(prediction, answer) == pytest.approx(overlap)


def test_a_question_counts_with_its_best_answer_and_scores_are_means():
  answers = [["1994", "in the year 1994"], ["blue", "deep blue sea"], ["x"]]
  scores = span_metrics.evaluate(["year 1994", "deep sea", "X."], answers)
  assert scores["exact_match"] == pytest.approx(1 / 3)
  assert scores["f1"] == pytest.approx((4 / 5 + 4 / 5 + 1) / 3)


def test_unanswerable_calls_are_refused():
  with pytest.raises(ValueError, match="no answers"):
    span_metrics.evaluate(["x"], [[]])
  with pytest.raises(ValueError, match="2 predictions for 1 questions"):
    span_metrics.evaluate(["x", "y"], [["x"]])
  with pytest.raises(ValueError, match="0 predictions"):
    span_metrics.evaluate([], [])


@pytest.mark.parametrize("longest", [1, 2, 3, 30])
def test_best_span_equals_the_search_over_all_spans(longest):
  rng = np.random.default_rng(0)
  start_logits, end_logits = rng.normal(size=(2, 20, 9)).astype(np.float32)
  valid = np.zeros((20, 9), bool)
  for row, (low, high) in enumerate(np.sort(rng.integers(0, 10, (20, 2)))):
    valid[row, low:high] = True
  starts, ends, scores = span_metrics.best_span(start_logits, end_logits, valid, longest)
  for row in range(20):
    spans = {
      (i, j): start_logits[row, i] + end_logits[row, j]
      for i in range(9)
      for j in range(i, min(i + longest, 9))
      if valid[row, i] and valid[row, j]
    }
    best = max(spans, key=spans.get, default=(0, 0))
    assert (starts[row], ends[row]) == best
    assert scores[row] == spans.get(best, -np.inf)


def test_among_equal_spans_the_shortest_then_the_first_wins():
  flat = np.zeros((1, 4), np.float32)
  starts, ends, _ = span_metrics.best_span(flat, flat, np.array([[False, True, True, True]]))
  assert (starts[0], ends[0]) == (1, 1)


def test_an_answer_of_no_tokens_is_refused():
  flat = np.zeros((1, 4), np.float32)
  with pytest.raises(ValueError, match="longest=0"):
    span_metrics.best_span(flat, flat, flat == 0, longest=0)
