"""The flags that the training binaries share."""

import dataclasses
import json
import re
import types

import numpy as np
import pytest
from PIL import Image

from attention_lab.data.dataset import Arrays
from attention_lab.data.folds import fold
from attention_lab.tasks import image_classification, recall
from attention_lab.workflows import training


def small(**data):
  config = recall.Config(steps=12, batch=8)
  config.mesh.data = 1
  config.model = dataclasses.replace(config.model, width=16, layers=1)
  config.data = dataclasses.replace(config.data, train=64, validation=8, test=8, **data)
  return config


class Unread(Arrays):
  def __getitem__(self, indices):
    raise AssertionError("the test split is not for cross-validation")


def folding(test=Arrays):
  """The recall task, with its data cut into folds and a test split of this class."""

  def build(config, workdir, mesh=None):
    task = recall.build(config, workdir, mesh)
    source = fold(task.source, config.data.folds, config.data.fold)
    splits = {**source.splits, "test": test(source.splits["test"].arrays)}
    return dataclasses.replace(task, source=dataclasses.replace(source, splits=splits))

  return types.SimpleNamespace(NAME="recall", build=build)


def test_every_fold_is_trained_in_its_folder_and_the_test_split_is_not_read(tmp_path, capsys):
  training.cross_validate(folding(Unread), small(folds=2), str(tmp_path))
  lines = capsys.readouterr().out.splitlines()
  values = [json.loads((tmp_path / f"fold_{i}" / "final.json").read_text())[0]["metrics"] for i in (0, 1)]
  assert [set(metrics) for metrics in values] == [{"validation"}] * 2
  accuracies = [metrics["validation"]["accuracy"] for metrics in values]
  assert lines[-1].startswith(f"2 folds: validation accuracy {np.mean(accuracies):.4f} ± ")
  half = 12.7062 * abs(accuracies[0] - accuracies[1]) / 2  # Student's t with one degree of freedom
  assert float(re.search(r"± ([\d.]+) \(95 %", lines[-1]).group(1)) == pytest.approx(half, abs=1e-3)
  folders = [json.loads((tmp_path / f"fold_{i}" / "config.json").read_text())["config"]["data"] for i in (0, 1)]
  assert [data["fold"] for data in folders] == [0, 1]
  training.train(folding(), small(folds=2), str(tmp_path / "fold_0"))
  assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("test: ")]


@pytest.mark.parametrize("data", [{}, {"folds": 3, "fold": 1}])
def test_a_cross_validation_without_folds_or_of_one_fold_is_refused(data, tmp_path):
  with pytest.raises(ValueError, match="--cross_validate trains all folds"):
    training.cross_validate(recall, small(**data), str(tmp_path))
  assert not list(tmp_path.iterdir())


def images(**changes):
  config = image_classification.Config(steps=1, batch=8)
  config.mesh.data = 1
  model = {"width": 16, "layers": 1, "pooling": "cls", **changes}
  config.model = dataclasses.replace(config.model, **model)
  return config


def test_images_of_another_size_begin_with_the_parameters_of_a_run_and_its_positions_between_theirs(tmp_path, capsys):
  training.train(image_classification, images(), str(tmp_path / "before"))
  for label, name in enumerate(("cat", "dog")):
    (tmp_path / "data" / name).mkdir(parents=True)
    for number in range(5):
      pixels = np.full((16, 16), 20 * number + label, np.uint8)
      Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
  config = images()
  config.pretrained, config.data.path = str(tmp_path / "before"), str(tmp_path / "data")
  capsys.readouterr()
  training.train(image_classification, config, "")
  assert re.search(r"(\d+) of \d+ arrays are the pre-trained ones; fresh: head;", capsys.readouterr().out)
  with pytest.raises(ValueError, match=r"config\.model\.patch is 2 there and 4 here"):
    training.train(image_classification, dataclasses.replace(config, model=images(patch=4).model), "")
