import itertools
import json

import numpy as np
import pytest

from attention_lab.config import DataConfig
from attention_lab.data import prepared, questions, span_metrics, spans
from attention_lab.data.dataset import SPLITS
from attention_lab.data.labelled import Reading

CONTEXT = (
  "Ada (born 1815) met İnci in São-Paulo, twice. Later she moved to the old house of Charles Babbage. It rained."
)


def example(article, number, context=CONTEXT, answer="the old house"):
  text = f"{context} Article {article}, {number}."
  return {
    "question": f"Where did she move in {number}?",
    "context": text,
    "answers": {"text": [answer, "house"], "answer_start": [text.index(answer), text.index("house")]},
    "title": f"title {article}",
  }


def publish(monkeypatch, splits, kinds=("answers", "context", "question", "title")):
  monkeypatch.setattr(prepared, "features", lambda name, directory: dict.fromkeys(kinds, "text"))
  monkeypatch.setattr(prepared, "splits", lambda name, directory: {split: len(rows) for split, rows in splits.items()})

  def columns(name, split, directory, names):
    return {feature: [row[feature] for row in splits[split]] for feature in names}

  monkeypatch.setattr(prepared, "columns", columns)


@pytest.fixture
def one_split(monkeypatch):
  publish(monkeypatch, {"test": [example(article, number) for article in range(10) for number in range(3)]})


def load(workdir="", *, length=48, kind="word", vocabulary=0, **fields):
  reading = Reading(tokenizer=kind, vocabulary=vocabulary, length=length)
  return spans.load(DataConfig(name="tiny", **fields), workdir, reading)


def perfect(split):
  """Logits that are 1 on the answer's ends where a window has it."""
  arrays = split.arrays
  present = (arrays["start"] > 0)[:, None]
  return tuple((np.eye(arrays["tokens"].shape[1], dtype=np.float32)[arrays[end]]) * present for end in ("start", "end"))


@pytest.mark.parametrize("length", [48, 30, 24])
@pytest.mark.parametrize(("kind", "vocabulary"), [("word", 0), ("wordpiece", 60), ("byte", 0)])
def test_spans_give_back_the_answers_as_they_stand_in_the_context(one_split, kind, vocabulary, length):
  length *= 4 if kind == "byte" else 2 if kind == "wordpiece" else 1
  source = load(kind=kind, vocabulary=vocabulary, length=length)
  for split in source.splits.values():
    answered = split.arrays["start"] > 0
    assert {*split.arrays["example"][answered]} == set(range(len(split.questions)))
    for row in np.flatnonzero(answered).tolist():
      start, end = int(split.arrays["start"][row]), int(split.arrays["end"][row])
      assert split.text(row, start, end) == "the old house"
    predictions = split.predictions(*perfect(split), longest=length)
    assert span_metrics.evaluate(predictions, split.answers) == {"exact_match": 1, "f1": 1}


@pytest.mark.parametrize(
  "answer", ["Ada", "1815", "İnci", "São-Paulo", "twice", "Charles Babbage. It rained", "(born 1815)"]
)
def test_offsets_hold_for_letters_that_change_their_length_in_lower_case(monkeypatch, answer):
  publish(monkeypatch, {"test": [example(article, 0, answer=answer) for article in range(5)]})
  split = load().splits["test"]
  assert split.predictions(*perfect(split)) == [answer]


def test_an_answer_inside_a_word_is_widened_to_the_word(monkeypatch):
  publish(monkeypatch, {"test": [example(article, 0, answer="oved to") for article in range(5)]})
  split = load().splits["test"]
  assert split.predictions(*perfect(split)) == ["moved to"]


def test_a_row_is_class_question_separator_window_separator(one_split):
  source = load()
  special = source.metadata["special"]
  split = source.splits["train"]
  batch = split[np.arange(len(split))]
  assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}
  for row, length in enumerate(batch["length"]):
    tokens, kinds = batch["tokens"][row], batch["types"][row]
    marks = np.flatnonzero(tokens == special["separator"])
    assert tokens[0] == special["class"]
    assert marks.tolist() == [8, length - 1]  # `where did she move in 0 ?` are seven
    assert not tokens[length:].any()
    np.testing.assert_array_equal(kinds, (np.arange(48) > 8) & (np.arange(48) < length))


def test_windows_start_every_half_and_together_hold_the_whole_context(one_split):
  split = load(length=24).splits["test"]  # 14 tokens of context in a window
  first = np.flatnonzero(split.arrays["example"] == 0).tolist()
  shown = [split.describe(row).split(" | ")[1] for row in first]
  text = split.questions[0].context
  assert text.startswith(shown[0])
  assert text.endswith(shown[-1])
  tokens = [split.arrays["tokens"][row, 9 : split.arrays["length"][row] - 1].tolist() for row in first]
  for before, after in itertools.pairwise(tokens):
    assert before[7:] == after[:7]
  assert len(first) == 1 + -(-(len(spans._split_words(text)) - 14) // 7)


def test_windows_without_the_answer_have_0_0_and_are_counted(one_split):
  source = load(length=24)
  for name, split in source.splits.items():
    empty = split.arrays["start"] == 0
    assert (split.arrays["end"][empty] == 0).all()
    assert source.metadata["without_answer"][name] == empty.sum() > 0
    assert all("the old house" not in split.describe(row).split(" | ")[1] for row in np.flatnonzero(empty).tolist())


def test_a_long_question_is_cut_and_counted(one_split):
  source = load(length=12)  # 4 tokens of the question
  assert source.metadata["truncated"] == source.metadata["questions"]
  assert set(np.argmax(source.splits["test"].arrays["types"], axis=1)) == {6}
  assert load().metadata["truncated"] == dict.fromkeys(SPLITS, 0)


def test_the_best_window_answers_the_question(one_split):
  split = load(length=24).splits["test"]
  start, end = perfect(split)
  weaker = start * 0.5
  weaker[split.arrays["start"] == 0, 10] = 0.75  # a wrong token of windows without the answer
  assert set(split.predictions(weaker, end)) == {"the old house"}
  wrong = end.copy()
  wrong[split.arrays["start"] == 0, 10] = 2
  assert "the old house" not in split.predictions(weaker, wrong)


def articles_of(source):
  return {split: {question.article for question in source.splits[split].questions} for split in SPLITS}


def test_a_single_split_is_cut_by_article(one_split):
  source = load()
  parts = articles_of(source)
  assert [len(parts[split]) for split in SPLITS] == [6, 2, 2]
  assert len(set.union(*parts.values())) == 10
  assert source.metadata["questions"] == {"train": 18, "validation": 6, "test": 6}
  assert len(set(source.digests.values())) == 3
  assert source.digests == load().digests
  json.dumps(dict(source.metadata))


def test_without_a_test_split_the_published_validation_is_test(monkeypatch):
  train = [example(article, 0) for article in range(20)]
  publish(monkeypatch, {"train": train, "validation": [example("held out", 0)]})
  parts = articles_of(load())
  assert parts["test"] == {"title held out"}
  assert [len(parts["train"]), len(parts["validation"])] == [18, 2]


def test_folds_deal_whole_articles_each_once_and_leave_test_alone(one_split):
  parts = [articles_of(load(folds=4, fold=fold)) for fold in range(4)]
  assert all(part["test"] == articles_of(load())["test"] for part in parts)
  held = [article for part in parts for article in part["validation"]]
  assert len(held) == len(set(held)) == 8
  assert all(part["train"] | part["validation"] == set(held) for part in parts)
  assert not any(part["train"] & part["validation"] for part in parts)


def test_a_workdir_keeps_the_tokenizer(one_split, tmp_path):
  assert load(tmp_path).digests == load(tmp_path).digests
  with pytest.raises(ValueError, match=r"--config\.data\.tokenizer=wordpiece"):
    load(tmp_path, kind="wordpiece", vocabulary=60)


def test_the_control_is_the_f1_of_the_sentence_most_like_the_question():
  asked = questions.Question("Where did she move to?", CONTEXT, ("the old house",), "", 0, 0)
  # `Later she moved to the old house of Charles Babbage.`: 9 words without articles, 2 of them the answer's, and all
  assert questions.similar_sentence([asked]) == pytest.approx(2 * 2 / (9 + 2))


def test_spans_outside_the_window_have_no_text(one_split):
  split = load().splits["test"]
  assert split.text(0, 0, 0) == ""
  for start, end in ((0, 3), (10, 9), (10, 47)):
    with pytest.raises(ValueError, match="are no span of row 0"):
      split.text(0, start, end)


def test_bad_flags_and_datasets_are_refused_by_name(monkeypatch, one_split):
  for fields, message in (
    ({"length": 7}, r"--config\.data\.length=7"),
    ({"path": "x"}, r"--config\.data\.path=x: questions are read from --config\.data\.dir"),
    ({"folds": 1}, r"--config\.data\.folds=1 .*2 to 8 folds"),
    ({"folds": 9}, r"--config\.data\.folds=9"),
    ({"folds": 2, "fold": 2}, r"--config\.data\.fold=2"),
  ):
    with pytest.raises(ValueError, match=message):
      load(**fields)
  rows = [example(article, 0) for article in range(5)]
  publish(monkeypatch, {"test": rows}, kinds=("context", "question"))
  with pytest.raises(ValueError, match=r"--config\.data\.name=tiny has no feature answers"):
    load()
  rows[3]["answers"]["answer_start"][0] = 1
  publish(monkeypatch, {"test": rows})
  with pytest.raises(ValueError, match="does not start at 1"):
    load()
  rows[3]["answers"] = {"text": [], "answer_start": []}
  with pytest.raises(ValueError, match="has no answer"):
    load()
  publish(monkeypatch, {"test": rows[:2]})
  with pytest.raises(ValueError, match="train split has no questions"):
    load()
