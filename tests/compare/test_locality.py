import numpy as np
import pytest

from attention_lab.compare.report import families, locality, pictures

LENGTH = 512
CONFIG = {"config": {"config.data.length": LENGTH}}


def _rows(means, noise=0.004, seeds=4):
  """Receptive field -> mean score, as rows of one variant."""
  rows = {}
  for field, mean in means.items():
    random = np.random.default_rng(field)
    rows[f"local(window={field})"] = (
      (mean + noise * random.normal(size=seeds)).tolist(),
      {"receptive_field": field} | CONFIG,
    )
  return rows


def test_task_that_is_solved_within_a_small_field_is_called_local(table_of):
  table = table_of(_rows({3: 0.3, 33: 0.9, 129: 0.9, 512: 0.9}))
  sentences = locality.sentences(table)
  assert sentences[0] == "95 % of the gain over chance is reached at 33 of 512 positions: the task is local."
  assert sentences[1] == "From 33 positions on no receptive field is told to be worse than the largest, 512."


def test_task_that_only_the_largest_field_solves_needs_long_range(table_of):
  sentences = locality.sentences(table_of(_rows({3: 0.12, 33: 0.2, 257: 0.5, 512: 0.95})))
  assert sentences[0] == "95 % of the gain over chance is reached at 512 of 512 positions: the task needs long range."
  assert sentences[1] == "Every smaller receptive field is told from the largest one, 512 positions."


def test_a_task_is_not_long_range_because_another_mechanism_is_better(table_of):
  rows = _rows({3: 0.3, 33: 0.6, 257: 0.605}) | {"softmax": ([0.61] * 4, {"receptive_field": 512} | CONFIG)}
  rows["linformer(rank=64)"] = ([0.95, 0.94, 0.96, 0.95], {"receptive_field": 512} | CONFIG)
  (sentence, *_) = locality.sentences(table_of(rows))
  assert "at 512 of 512 positions, but softmax and its windows alone" in sentence
  assert sentence.endswith(
    "reach theirs at 33. What is gained beyond is another mechanism's, and the task is not shown to need long range."
  )


def test_a_task_is_long_range_where_softmax_and_its_windows_say_so_too(table_of):
  rows = _rows({3: 0.12, 33: 0.2, 257: 0.5}) | {"softmax": ([0.9] * 4, {"receptive_field": 512} | CONFIG)}
  rows["linformer(rank=64)"] = ([0.95, 0.94, 0.96, 0.95], {"receptive_field": 512} | CONFIG)
  (sentence, *_) = locality.sentences(table_of(rows))
  assert sentence.endswith(
    "needs long range, and softmax and its windows alone, which differ in nothing but their range, say so too."
  )


def test_task_whose_last_gain_needs_more_is_not_called_local_without_saying_so(table_of):
  sentences = locality.sentences(table_of(_rows({3: 0.5, 33: 0.88, 512: 0.9}, noise=0.0005)))
  assert sentences[0].endswith("at 33 of 512 positions: the task is mostly local, and the rest of the gain needs more.")


def test_of_equal_fields_the_best_row_counts(table_of):
  rows = _rows({3: 0.3, 33: 0.9, 512: 0.9})
  rows["weak"] = ([0.11] * 4, {"receptive_field": 512} | CONFIG)
  assert locality.probe(table_of(rows)).enough == 33


def test_lower_is_better_is_read_the_other_way(table_of):
  table = table_of(_rows({3: 2.0, 33: 1.0, 512: 1.0}), higher=False, chance=8.0)
  assert locality.probe(table).enough == 33


def test_rows_that_learned_nothing_say_nothing_of_the_task(table_of):
  sentences = locality.sentences(table_of(_rows({3: 0.1, 33: 0.1, 512: 0.1})))
  assert sentences == [
    "No row with the largest receptive field (512 positions) is told from chance: nothing can be said."
  ]


def test_range_that_was_not_tried_is_not_judged_in_silence(table_of):
  sentences = locality.sentences(table_of(_rows({3: 0.3, 17: 0.9, 33: 0.9})))
  assert sentences[-1] == "No row reads more than 33 of 512 positions, so longer range was not tried."


def test_one_seed_tells_no_field_from_another(table_of):
  assert locality.probe(table_of(_rows({3: 0.3, 33: 0.9, 512: 0.9}, seeds=1))).like is None


@pytest.mark.parametrize("fields", [{33: 0.9, 512: 0.9}, {512: 0.9}])
def test_fewer_than_three_fields_are_no_probe(fields, table_of):
  table = table_of(_rows(fields))
  assert locality.probe(table) is None
  assert locality.sentences(table) == []
  assert pictures.by_range(table, {}) is None


def test_picture_names_every_row_once_and_the_chance_line(table_of):
  rows = _rows({3: 0.3, 33: 0.9, 512: 0.9})
  rows["softmax"] = ([0.93] * 4, {"receptive_field": 512} | CONFIG)
  picture = pictures.by_range(table_of(rows), families.numbers(list(rows)))
  (axes,) = picture.figure.axes
  names = [text.get_text() for text in axes.texts]
  assert sorted(names) == sorted(["3", "33", "local(window=512)", "softmax", "chance"])
  assert picture.texts == locality.sentences(table_of(rows))
  drawn = [point for line in axes.lines if line.get_marker() in set("os^D") for point in line.get_xdata()]
  assert sorted(drawn) == [3, 33, 512, 512]
