"""Images to classes: what is drawn for training alone, other architectures, folds, refusals."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab import mesh as meshes
from attention_lab.attention.base import Unsupported
from attention_lab.config import MeshConfig
from attention_lab.data.pipeline import evaluation_batches, train_batches
from attention_lab.models.chunked_cross_entropy import cross_entropy
from attention_lab.tasks import image_classification
from attention_lab.train import loop

KEY = jax.random.key(0)
AUGMENTED = {
  "crop": {"crop": 2},
  "flip": {"flip": True},
  "mixup": {"mixup": 0.4},
  "cutmix": {"cutmix": 1.0},
  "randaugment": {"randaugment": 2, "magnitude": 15},
}


def configure(*, model=(), data=(), **fields):
  """One layer, 16 wide, on digits."""
  config = image_classification.Config(**{"steps": 2, "batch": 32} | fields)
  config.mesh.data = 1
  config.model = dataclasses.replace(config.model, **{"layers": 1, "width": 16, "dropout": 0.0} | dict(model))
  config.data = dataclasses.replace(config.data, **dict(data))
  return config


def build(**fields):
  return image_classification.build(configure(**fields), "")


@pytest.fixture(scope="module")
def plain():
  return build()


def first(task, seed=0):
  return next(train_batches(task.source.splits["train"], 16, seed))


@pytest.mark.parametrize("name", AUGMENTED)
def test_training_images_are_drawn_anew_and_no_others(name, plain):
  task = build(data=AUGMENTED[name])
  before, batch = first(plain), first(task)
  np.testing.assert_array_equal(batch["label"], before["label"])
  changed = (batch["image"] != before["image"]).any(axis=(1, 2, 3))
  assert changed.sum() >= 3
  assert (batch["image"].dtype, batch["image"].shape) == (np.float32, (16, 8, 8, 1))
  assert 0.0 <= batch["image"].min() <= batch["image"].max() <= 1.0
  assert task.source.digests == plain.source.digests
  for split in ("validation", "test"):
    pairs = zip(*(evaluation_batches(pipeline.source.splits[split], 128) for pipeline in (task, plain)), strict=True)
    for augmented, other in pairs:
      assert augmented.keys() == other.keys()
      np.testing.assert_array_equal(augmented["image"], other["image"])


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_a_mixed_image_costs_what_its_two_labels_cost_by_their_weights(name, plain):
  task = build(data=AUGMENTED[name])
  batch = jax.tree.map(jnp.asarray, first(task))
  assert 0.0 < float(batch["mix"].mean()) < 1.0
  params = jax.jit(task.model.init)(KEY)

  @jax.jit
  def both(params, batch):
    logits = task.model.apply(params, batch["image"]).logits
    nats = [cross_entropy(logits, batch[label]) for label in ("label", "label_b")]
    return task.loss(params, batch, None)[0], jnp.mean(batch["mix"] * nats[0] + (1 - batch["mix"]) * nats[1]), nats

  loss, expected, (cost, other) = both(params, batch)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  assert abs(float(loss) - float(cost.mean())) > 1e-4
  assert abs(float(loss) - float(other.mean())) > 1e-4
  assert set(first(plain)) == {"image", "label"}


ARCHITECTURES = {
  "resnet": {"architecture": "resnet", "width": 8, "block": "non_local", "attention": "linear", "heads": 2},
  "hierarchical": {"architecture": "hierarchical", "layers": 2, "attention": "swin(window=2)|softmax", "heads": 2},
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_architectures_train_and_are_judged(name, tmp_path):
  config = configure(model=ARCHITECTURES[name])
  task = image_classification.build(config, "")
  before = jax.device_get(jax.jit(task.model.init)(jax.random.key(1)))
  mesh = meshes.make_mesh(MeshConfig(data=1), jax.devices()[:1])
  (result,) = loop.run(task, config, tmp_path, mesh=mesh, log=lambda line: None)
  metrics = result["metrics"]["test"]
  assert {"accuracy", "loss", "f1", "roc_auc", "top_5", "calibration_error"} <= set(metrics)
  assert np.isfinite(list(metrics.values())).all()
  assert metrics["accuracy"] <= metrics["top_5"]
  assert result["skipped"] == 0
  assert result["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(before))
  rows = [json.loads(line) for line in (tmp_path / "errors.jsonl").read_text().splitlines()]
  wrong = [row for row in rows if row["split"] == "test"]
  assert len(wrong) == round((1 - metrics["accuracy"]) * len(task.source.splits["test"]))
  assert all(row["input"] == task.source.splits["test"].describe(row["index"]) for row in wrong[:9])
  assert wrong[0]["input"].endswith(" of digits")
  logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  (inspected,) = [row for row in logged if row["split"] == "inspect"]
  assert {"layer_0/entropy", "layer_1/entropy"} <= set(inspected)


def test_a_network_without_attention_has_no_layers_to_inspect_and_no_positions():
  task = build(model={"architecture": "resnet", "width": 8})
  assert (task.resolved_positions, task.inspect, task.tokens_per_example) == ("none", None, 64)
  attending = build(model=ARCHITECTURES["resnet"])
  assert attending.resolved_positions == "none"
  assert attending.inspect is not None


def test_a_small_image_says_its_tokens_and_codes():
  assert build(model={"pooling": "cls", "registers": 3}).tokens_per_example == 16 + 1 + 3
  assert build(model={"architecture": "hierarchical", "layers": 2, "positions": "auto"}).resolved_positions == "rope"
  assert build(model={"positions": "sincos2d"}).resolved_positions == "sincos2d"


def test_folds_of_augmented_images_cut_train_and_validation_and_leave_test(plain):
  folded = [build(data={"folds": 2, "fold": fold, "flip": True}).source for fold in (0, 1)]
  names = [
    {source.splits["validation"].describe(i) for i in range(len(source.splits["validation"]))} for source in folded
  ]
  known = [plain.source.splits[split] for split in ("train", "validation")]
  assert names[0] | names[1] == {split.describe(i) for split in known for i in range(len(split))}
  assert not names[0] & names[1]
  for source in folded:
    assert source.digests["test"] == plain.source.digests["test"]
    assert hasattr(source.splits["train"], "augmented")
    assert not hasattr(source.splits["validation"], "augmented")


REFUSED = {
  "architecture": ({"architecture": "resent"}, {}, r"architecture=resent is unknown, did you mean 'resnet'"),
  "another's field": ({"stages": "1,1"}, {}, r"stages=1,1 means nothing to --config\.model\.architecture=vit"),
  "a block": ({"architecture": "resnet", "block": "cbm"}, {}, r"block=cbm is unknown, did you mean 'cbam'"),
  "positions of a network": (
    {"architecture": "resnet", "positions": "rope"},
    {},
    r"positions=rope means nothing to resnet",
  ),
  "attention of a plain network": (
    {"architecture": "resnet", "attention": "linear"},
    {},
    r"attention=linear means nothing to resnet",
  ),
  "a causal variant": ({"attention": "memorizing"}, {}, r"memorizing.* is causal by construction"),
  "a causal variant in a block": (
    {"architecture": "resnet", "block": "non_local", "attention": "memorizing"},
    {},
    r"memorizing.* is causal by construction, and image_classification",
  ),
  "length": ({}, {"length": 9}, r"--config\.data\.length=9"),
  "mixup": ({}, {"mixup": -0.5}, r"--config\.data\.mixup=-0\.5 is out of range"),
  "magnitude": ({}, {"randaugment": 1, "magnitude": 31}, r"--config\.data\.magnitude=31 is out of range"),
  "magnitude of nothing": (
    {},
    {"magnitude": 20},
    r"--config\.data\.magnitude=20 with --config\.data\.randaugment=0 means nothing",
  ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_before_data_are_read(name, monkeypatch):
  model, data, message = REFUSED[name]
  monkeypatch.setattr(image_classification.images, "load", _never)
  with pytest.raises(ValueError, match=message) as caught:
    build(model=model, data=data)
  assert "\n" not in str(caught.value)
  assert isinstance(caught.value, Unsupported) == name.startswith("a causal")


def _never(*args, **kwargs):
  raise AssertionError("data was read")


@pytest.mark.parametrize(
  "data, message",
  [
    ({"crop": 8}, r"--config\.data\.crop=8 may miss the image; give less than 8"),
    ({"side": 16}, r"--config\.data\.side=16: digits are 8x8"),
    ({"folds": 2, "fold": 2}, r"--config\.data\.fold=2 is no part of --config\.data\.folds=2"),
  ],
)
def test_what_does_not_fit_the_data_is_refused(data, message):
  with pytest.raises(ValueError, match=message):
    build(data=data)
