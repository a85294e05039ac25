import json
import re

import numpy as np
import pytest

from attention_lab.config import DataConfig
from attention_lab.data import babi, prepared
from attention_lab.data.dataset import SPLITS

PLACES = ("attic", "barn", "cellar", "den")


def moves(task, stories, questions, seed):
  """Stories in which Ada moves about, with a question after every second move; the answer is where she went last."""
  rng = np.random.default_rng(seed)
  rows = []
  for number in range(stories):
    story = [f"Room {number} is {seed}."]
    for _ in range(questions):
      places = rng.permutation(PLACES)[:2].tolist()
      story += [f"Ada went to the {room}." for room in places]
      rows.append({"answer": places[1], "question": "Where is Ada?", "story": list(story), "task": task})
  return rows


def columns_of(rows):
  table = {name: [row[name] for row in rows] for name in babi.COLUMNS}
  return table | {"task": np.array(table["task"])}


@pytest.fixture
def tables(monkeypatch):
  train = moves(1, 20, 5, 0) + moves(2, 7, 3, 1)
  test = moves(1, 2, 5, 2) + moves(2, 2, 3, 3)
  test[0]["answer"] = "attic,barn"
  published = {"train": columns_of(train), "test": columns_of(test)}
  monkeypatch.setattr(prepared, "columns", lambda name, split, directory, names: published[split])
  return published


def load(task=0, sentences=False, **fields):
  return babi.load(DataConfig(length=80) if not fields else DataConfig(**fields), task, sentences)


def words_of(source):
  """Words by id, from the description of every example that is whole."""
  named = {}
  for stories in source.splits.values():
    for index in range(len(stories)):
      text = re.findall(r"\w+|[.?]", stories.describe(index).lower())
      asked = [1, *([None] * 4), 2]  # class, `where is ada ?`, separator
      ids = stories.arrays["tokens"][index, : stories.arrays["length"][index]].tolist()
      assert (ids[0], ids[5]) == (asked[0], asked[5])
      for word, token in zip(text[-4:] + text[:-4], ids[1:5] + ids[6:], strict=True):
        assert named.setdefault(token, word) == word
  return named


def test_an_example_is_class_question_separator_and_the_story_in_its_order(tables):
  source = load()
  named = words_of(source)
  unknown = named.pop(babi.SPECIAL["unknown"], None)
  assert len(set(named.values())) == len(named) == source.metadata["vocabulary"] - 4
  assert unknown is None or unknown not in named.values()


def test_by_sentences_an_example_is_the_question_and_then_each_sentence_with_the_same_words(tables):
  by_words, sentences = load(), load(sentences=True)
  assert sentences.metadata["vocabulary"] == by_words.metadata["vocabulary"]
  for split in SPLITS:
    for index in range(len(by_words.splits[split])):
      plain, stacked = (source.splits[split].arrays for source in (by_words, sentences))
      flat = plain["tokens"][index][3 : plain["length"][index]]
      flat = np.concatenate([plain["tokens"][index][1:5], flat[3:]])  # without class and separator
      rows = stacked["tokens"][index]
      np.testing.assert_array_equal(rows[rows > 0], flat)
      told = stacked["length"][index]
      assert (rows[:told, 0] > 0).all()
      assert not rows[told:].any()
      np.testing.assert_array_equal(stacked["types"][index][:told], [0, *range(told - 1, 0, -1)])
      assert sentences.splits[split].describe(index) == by_words.splits[split].describe(index)


def test_by_sentences_a_long_story_loses_its_oldest_and_is_counted(tables):
  source = load(sentences=True, length=4)
  whole = load(sentences=True).splits["test"].arrays
  assert source.metadata["longest"] == whole["length"].max() == 12
  assert source.metadata["truncated"]["test"] == (whole["length"] > 4).sum()
  np.testing.assert_array_equal(source.splits["test"].arrays["tokens"][2, 1:4], whole["tokens"][2, 5:8])


def test_ids_go_by_frequency_then_alphabet_of_train_and_new_words_of_test_are_unknown(tables):
  table = tables["test"]
  table["question"][1] = "Where is Zed?"
  source = load()
  batch = source.splits["test"][np.array([1])]
  assert babi.SPECIAL["unknown"] in batch["tokens"]
  train = source.splits["train"].arrays["tokens"]
  counts = np.bincount(train.reshape(-1), minlength=source.metadata["vocabulary"])[4:]
  assert (np.diff(counts) <= 0).all()


def test_types_count_sentences_from_the_most_recent_and_are_0_in_the_question(tables):
  arrays = load().splits["test"].arrays
  third = arrays["types"][2, : arrays["length"][2]]
  expected = np.repeat([0, 7, 6, 5, 4, 3, 2, 1], [6, 5, 6, 6, 6, 6, 6, 6])[: len(third)]
  expected[6:11] = 7  # `room 0 is 2 .`
  np.testing.assert_array_equal(third, expected)
  assert not arrays["types"][2, len(third) :].any()


def test_sentences_far_back_share_the_last_type(tables, monkeypatch):
  monkeypatch.setattr(babi, "TYPES", 4)
  arrays = load().splits["test"].arrays
  assert arrays["types"][2].max() == 3
  assert (arrays["types"][2] == 3).sum() == 5 + 4 * 6


def test_validation_is_a_tenth_of_each_tasks_questions_in_whole_stories(tables):
  source = load()
  held = source.splits["validation"]
  assert np.bincount(held.arrays["group"]).tolist() == [0, 10, 3]
  assert source.metadata["sizes"] == {"train": 108, "validation": 13, "test": 16}
  stories = {split: stories_of(source.splits[split]) for split in SPLITS}
  assert not stories["train"] & stories["validation"]
  assert len(stories["train"] | stories["validation"]) == 27
  assert source.digests == load().digests
  assert len(set(source.digests.values())) == 3


def stories_of(stories):
  return {re.match(r"Room \d+ is \d+", stories.describe(i))[0] for i in range(len(stories))}


def test_folds_deal_whole_stories_of_each_task_each_once(tables):
  parts = [load(length=80, folds=3, fold=fold) for fold in range(3)]
  held = [stories_of(part.splits["validation"]) for part in parts]
  assert sum(map(len, held)) == len(set.union(*held)) == 27
  for part, stories in zip(parts, held, strict=True):
    assert stories_of(part.splits["train"]) == set.union(*held) - stories
    assert set(np.bincount(part.splits["validation"].arrays["group"])[1:] // [5, 3]) <= {2, 3, 6, 7}
    assert stories_of(part.splits["test"]) == stories_of(load().splits["test"])


def test_equal_stories_lie_in_one_split(tables):
  repeated = [row | {"question": question} for row in moves(3, 30, 1, 5) for question in ("Where is Ada?", "Is Ada?")]
  for name, column in columns_of(repeated[::2] + repeated[1::2]).items():
    tables["train"][name] = column
  source = load()
  assert source.metadata["sizes"]["validation"] == 6
  assert source.metadata["repeated"]["validation"] == 0
  held = sorted(source.splits["validation"].describe(i).split(" Ada went")[0] for i in range(6))
  assert held[::2] == held[1::2]


def test_a_long_story_loses_its_oldest_sentences_and_is_counted(tables):
  source = load(length=30)  # 6 tokens of the question, 4 moves of 6
  test = source.splits["test"]
  assert test.describe(2).count("Ada went") == 4
  assert "Room" not in test.describe(2)
  assert test.arrays["length"].max() == 30
  longer = {split: int((load().splits[split].arrays["length"] > 30).sum()) for split in SPLITS}
  assert source.metadata["truncated"] == longer
  np.testing.assert_array_equal(test.arrays["tokens"][2, 6:30], load().splits["test"].arrays["tokens"][2, 23:47])


def test_answers_are_classes_and_one_that_train_lacks_is_counted(tables):
  source = load()
  assert source.metadata["names"] == sorted([*PLACES, "attic,barn"])
  assert source.metadata["names"][source.splits["test"].arrays["label"][0]] == "attic,barn"
  assert source.metadata["unseen"] == {"validation": 0, "test": 1}
  json.dumps(dict(source.metadata))


def test_the_control_answers_each_task_with_its_own_most_frequent_answer(tables):
  for row in range(100):
    tables["train"]["answer"][row] = "den"
  for row in range(100, 121):
    tables["train"]["answer"][row] = "barn"
  expected = [
    answer == ("den" if task == 1 else "barn")
    for answer, task in zip(tables["test"]["answer"], tables["test"]["task"], strict=True)
  ]
  assert load().controls["most frequent answer per task"] == pytest.approx(np.mean(expected))


def test_one_task_alone_is_that_task(tables):
  source = load(task=2)
  assert source.name == "babi/2"
  assert source.metadata["sizes"] == {"train": 18, "validation": 3, "test": 6}
  assert set(source.splits["test"].arrays["group"]) == {2}


@pytest.mark.parametrize(
  ("task", "fields", "message"),
  [
    (21, {}, r"--config\.data\.task=21 .*1 to 20"),
    (-1, {}, r"--config\.data\.task=-1"),
    (0, {"name": "bibi"}, r"--config\.data\.name=bibi"),
    (0, {"path": "stories"}, r"--config\.data\.path=stories: bAbI is read from --config\.data\.dir"),
    (0, {"folds": 1}, r"--config\.data\.folds=1 .*2 or more folds"),
    (0, {"folds": 2, "fold": 2}, r"--config\.data\.fold=2"),
    (0, {"length": 5}, r"--config\.data\.length=5 is too short: the question 'Where is Ada\?' takes 6 tokens"),
  ],
)
def test_what_cannot_be_loaded_is_refused_by_flag(tables, task, fields, message):
  with pytest.raises(ValueError, match=message):
    load(task, **fields)
