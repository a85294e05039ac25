"""Metrics of classification against values by hand, plain loops and scikit-learn; and what wrong guesses tell."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as references

from attention_lab.data.dataset import Arrays, Dataset
from attention_lab.models.functional import Functional
from attention_lab.models.layers import Output
from attention_lab.tasks.parts import classification

RIGHT = np.array([1, 1, 1, 0, 0, 0])
POSITIVE = np.array([0.9, 0.8, 0.3, 0.6, 0.2, 0.1])  # two of three found, one of three alarms false


class Given(Functional):
  """A model whose logits are its one parameter."""

  def bind(self, params):
    return params["logits"]


MODEL = Given(lambda key: None)


def forward(module, batch, key):
  return Output(module[: len(batch["label"])], {"own": jnp.asarray(0.5)}, {"layer_0/entropy": jnp.asarray(2.0)})


def binary():
  return np.stack([1 - POSITIVE, POSITIVE], axis=1)


def sure(guesses, classes, confidence=0.8):
  """Probabilities that say these classes."""
  rest = (1 - confidence) / (classes - 1)
  return np.where(np.eye(classes, dtype=bool)[guesses], confidence, rest)


def drawn(count, classes):
  draws = np.random.default_rng(classes)
  logits = 2 * draws.normal(size=(count, classes))
  probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  label = np.where(draws.random(count) < 0.4, probabilities.argmax(axis=1), draws.integers(0, classes, count))
  label[:classes] = np.arange(classes)
  return probabilities, label


def test_two_classes_are_judged_by_the_positive_one():
  metrics = classification.probability_metrics(binary(), RIGHT)
  assert metrics["precision"] == metrics["recall"] == metrics["f1"] == pytest.approx(2 / 3)
  assert metrics["roc_auc"] == pytest.approx(8 / 9)  # 0.3 is below 0.6, the one pair of nine in the wrong order
  assert "top_5" not in metrics
  other = classification.probability_metrics(binary(), np.array([1, 1, 1, 1, 0, 0]), positive=0)
  assert (other["precision"], other["recall"]) == (pytest.approx(2 / 3), 1.0)


def test_several_classes_are_judged_by_the_mean_over_classes():
  metrics = classification.probability_metrics(sure([0, 1, 1, 1, 2, 0], 3), np.array([0, 0, 1, 1, 2, 2]))
  assert metrics["precision"] == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
  assert metrics["recall"] == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
  assert metrics["f1"] == pytest.approx((1 / 2 + 4 / 5 + 2 / 3) / 3)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_metrics_are_those_of_scikit_learn(classes):
  probabilities, label = drawn(200, classes)
  metrics, guess = classification.probability_metrics(probabilities, label), probabilities.argmax(axis=1)
  average = {"average": "binary" if classes == 2 else "macro"}
  assert metrics["precision"] == pytest.approx(references.precision_score(label, guess, **average))
  assert metrics["recall"] == pytest.approx(references.recall_score(label, guess, **average))
  assert metrics["f1"] == pytest.approx(references.f1_score(label, guess, **average))
  if classes > 5:
    assert metrics["top_5"] == pytest.approx(references.top_k_accuracy_score(label, probabilities, k=5))
  logits = jnp.asarray(np.log(probabilities), jnp.float32)
  batch = {"label": jnp.asarray(label), "weight": jnp.ones(200)}
  sums = {name: float(value) for name, value in classification.score(MODEL, forward, {"logits": logits}, batch).items()}
  accuracy = references.accuracy_score(label, guess)
  loss = references.log_loss(label, probabilities)
  assert classification.summarize(sums) == {"accuracy": pytest.approx(accuracy), "loss": pytest.approx(loss, rel=1e-5)}


@pytest.mark.parametrize("classes", [2, 4])
def test_the_area_is_the_share_of_pairs_in_the_right_order(classes):
  probabilities, label = drawn(60, classes)
  probabilities = np.round(probabilities, 1) + np.array([1e-3, *np.zeros(classes - 1)])  # with ties
  probabilities /= probabilities.sum(axis=1, keepdims=True)
  areas = []
  for index in range(classes):
    positives, others = probabilities[label == index, index], probabilities[label != index, index]
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in positives for b in others]
    areas.append(sum(pairs) / len(pairs))
  expected = areas[1] if classes == 2 else np.mean(areas)
  assert classification.probability_metrics(probabilities, label)["roc_auc"] == pytest.approx(expected)


def test_top_5_holds_the_label_among_the_five_largest():
  probabilities = np.array([[0.3, 0.25, 0.2, 0.1, 0.08, 0.07]] * 6)
  assert classification.probability_metrics(probabilities, np.arange(6))["top_5"] == pytest.approx(5 / 6)
  assert "top_5" not in classification.probability_metrics(sure([0, 1, 2, 3, 4], 5), np.arange(5))


def test_the_calibration_error_of_three_examples_is_that_by_hand():
  probabilities = np.array([[0.97, 0.03], [0.05, 0.95], [0.9, 0.1]])  # two in the bin above 14/15, one below
  label = np.array([0, 0, 0])
  expected = (abs(1 - 0.97 - 0.95) + abs(1 - 0.9)) / 3
  assert classification.calibration_error(probabilities, label) == pytest.approx(expected)
  assert classification.probability_metrics(probabilities, label)["calibration_error"] == pytest.approx(expected)
  certain = np.array([[1.0, 0.0], [0.0, 1.0]])
  assert classification.calibration_error(certain, np.array([0, 1])) == 0.0
  assert classification.calibration_error(certain, np.array([1, 0])) == 1.0


def test_a_class_without_examples_has_no_area_and_counts_as_zero():
  metrics = classification.probability_metrics(sure([0, 1, 1], 3), np.array([0, 1, 1]))
  assert "roc_auc" not in metrics
  assert metrics["recall"] == pytest.approx(2 / 3)
  alone = classification.probability_metrics(sure([0, 0, 0], 2), np.zeros(3, int))
  assert (alone["precision"], alone["recall"], alone["f1"], "roc_auc" in alone) == (0.0, 0.0, 0.0, False)
  rows = classification.class_tables(sure([0, 1, 1], 3), np.array([0, 1, 1]), ["a", "b", "c"])["by_class"]
  assert rows[2] == {"class": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "examples": 0}


def test_tables_are_json_whose_rows_are_labels():
  tables = classification.class_tables(sure([0, 1, 1, 1, 2, 0], 3), np.array([0, 0, 1, 1, 2, 2]), ["a", "b", "c"])
  assert json.loads(json.dumps(tables)) == tables
  assert tables["classes"] == ["a", "b", "c"]
  assert tables["confusion"] == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]
  expected = {"class": "b", "precision": pytest.approx(2 / 3), "recall": 1.0, "f1": pytest.approx(0.8), "examples": 2}
  assert tables["by_class"][1] == expected
  names = [str(n) for n in range(classification.TABLED + 1)]
  assert classification.class_tables(sure([0, 1], len(names)), np.array([0, 1]), names) == {}


class Written(Arrays):
  def describe(self, index):
    return f"text {index}"


def judged(probabilities, label, kind=Written):
  splits = {"test": kind({"label": label})}
  source = Dataset("made", splits, {}, {"names": ["cat", "dog"]}, {})
  return classification.judge(source, {"probabilities": probabilities.astype(np.float32), "label": label}, "test")


def test_wrong_guesses_are_rows_of_json_the_surest_first():
  probabilities, label = binary(), np.array([1, 0, 1, 0, 1, 1])  # wrong: 1 (0.8), 2 (0.7), 3 (0.6), 4 (0.8), 5 (0.9)
  judgement = judged(probabilities, label)
  assert [row["index"] for row in judgement.errors] == [5, 1, 4, 2, 3]
  assert [row["confidence"] for row in judgement.errors] == [0.9, 0.8, 0.8, 0.7, 0.6]
  first = {"index": 5, "input": "text 5", "label": "dog", "predicted": "cat", "confidence": 0.9}
  assert json.loads(json.dumps(judgement.errors[0])) == first
  assert judgement.tables["confusion"] == [[0, 2], [3, 1]]
  assert judged(probabilities, label, Arrays).errors[1]["input"] == "example 1"
  assert judged(probabilities, (POSITIVE > 0.5).astype(int)).errors == []


def test_a_split_is_judged_though_some_of_its_logits_are_no_numbers():
  probabilities = binary()
  probabilities[[0, 5]] = np.nan
  judgement = judged(probabilities, RIGHT)
  assert np.isfinite(list(judgement.metrics.values())).all()
  assert [(row["index"], row["confidence"]) for row in judgement.errors] == [(2, 0.7), (3, 0.6), (0, 0.5)]


def test_two_mixed_examples_cost_what_both_labels_cost_by_their_weights():
  logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
  batch = {"label": jnp.array([0, 1]), "label_b": jnp.array([1, 2]), "mix": jnp.array([0.25, 1.0])}
  total, logged = classification.loss(MODEL, forward, {"logits": logits}, batch, None)
  expected = -(0.25 * np.log(0.5) + 0.75 * np.log(0.25) + np.log(0.8)) / 2
  np.testing.assert_allclose(logged["loss"], expected, rtol=1e-6)
  np.testing.assert_allclose(total, expected + 0.5, rtol=1e-6)
  assert set(logged) == {"loss", "own", "layer_0/entropy"}
  plain, _ = classification.loss(MODEL, forward, {"logits": logits}, {"label": batch["label"]}, None)
  np.testing.assert_allclose(plain, -(np.log(0.5) + np.log(0.8)) / 2 + 0.5, rtol=1e-6)


def test_padding_is_in_no_sum():
  logits = jnp.log(jnp.array([[0.5, 0.5 - 1e-6], [0.1, 0.9]]))
  batch = {"label": jnp.array([0, 0]), "weight": jnp.array([1.0, 0.0])}
  sums = jax.device_get(classification.score(MODEL, forward, {"logits": logits}, batch))
  assert (sums["correct"], sums["examples"]) == (1.0, 1.0)
  np.testing.assert_allclose(sums["nll"], np.log(2), rtol=1e-5)


def test_predictions_are_probabilities_with_their_labels():
  probabilities, label = drawn(20, 3)
  params = {"logits": jnp.asarray(np.log(probabilities)) + 7.0}
  predictions = classification.predict(MODEL, forward, params, {"label": jnp.asarray(label)})
  np.testing.assert_allclose(predictions["probabilities"], probabilities, rtol=1e-4)
  np.testing.assert_array_equal(predictions["label"], label)
