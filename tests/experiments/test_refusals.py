"""A mistake costs one line on standard error, exit code 2, and nothing is written."""

import json

import numpy as np
import pytest
from PIL import Image

CASES = {
  "unknown variant": ("recall", ["--attention=sofmax"], "did you mean 'softmax'"),
  "unknown task": ("compare", ["--task=recal"], "did you mean 'recall'"),
  "unknown dataset": ("compare", ["--task=image_classification:digit"], "digits"),
  "malformed spec": ("recall", ["--attention=local(window="], "malformed"),
  "unknown hyper-parameter": ("recall", ["--attention=local(windw=3)"], "did you mean 'window'"),
  "ill-typed hyper-parameter": ("compare", ["--attention=softmax;local(window='x')"], "window='x' must be int"),
  "heads that do not divide": ("recall", ["--config.model.heads=3"], "--config.model.heads=3"),
  "kv heads that do not divide": ("recall", ["--config.model.kv_heads=3"], "--config.model.kv_heads=3"),
  "a window below one": ("recall", ["--attention=local(window=0)"], "at least 1"),
  "a causal task": ("language_modeling", ["--attention=linformer"], "linformer is not causal"),
  "a missing path": (
    "language_modeling",
    ["--config.data.path=no/such/file.txt"],
    "--config.data.path=no/such/file.txt",
  ),
  "an empty corpus": ("language_modeling", ["--config.data.path=empty.txt"], "--config.data.path=empty.txt"),
  "not text": ("language_modeling", ["--config.data.path=noise.txt"], "noise.txt"),
  "images of mixed sizes": ("image_classification", ["--config.data.path=mixed"], "9x8"),
  "another run's folder": (
    "recall",
    ["--workdir=other", "--config.model.width=64"],
    "config.model.width is 32 there and 64",
  ),
  "another experiment's folder": ("language_modeling", ["--workdir=other"], 'experiment is "recall" there'),
  "a mesh too large": ("recall", ["--config.mesh.tensor=16"], "--config.mesh.tensor=16"),
  "a batch that does not split": (
    "recall",
    ["--config.batch=63", "--config.optimizer.accumulate=2"],
    "--config.batch=63",
  ),
  "no steps": ("recall", ["--config.steps=0"], "--config.steps=0"),
  "unknown positions": ("recall", ["--config.model.positions=rotary"], "--config.model.positions=rotary"),
  "a folder without a run": ("evaluate", ["--workdir=nowhere"], "--workdir=nowhere"),
  "unknown split": ("compare", ["--seeds=0"], "--seeds=0"),
  "unknown suite": ("compare", ["--suite=visio"], "did you mean 'vision'"),
  "a size of no suite": ("compare", ["--size=gpu"], "give --suite"),
  "a positive control that is no row": ("compare", ["--positive=alibi"], "--positive=alibi is no row"),
  "a row that no workdir has": (
    "compare",
    ["--verify=recall softmax 0"],
    "--verify=recall softmax 0 is no finished row",
  ),
  "an override that no task has": ("compare", ["--config.no_such=1"], "--config.no_such=1"),
  "an unclaimed certificate": ("certify", ["--attention=nothing"], "unknown attention variant 'nothing'"),
  "a limit without mutants": ("certify", ["--attention=softmax", "--limit=3"], "add --mutate"),
  "an oracle of several": ("certify", ["--attention=softmax;linear", "--oracle=math:sin"], "equation of one variant"),
  "an oracle that is not there": ("certify", ["--attention=softmax", "--oracle=math:sinus"], "math has no sinus"),
  "a function that is not there": ("certify", ["--foreign=no_module:f"], "No module named 'no_module'"),
  "claims of nobody": ("certify", ["--attention=softmax", "--claims=bias=True"], "add --foreign"),
  "mutants of a mixture": ("certify", ["--attention=softmax+local", "--mutate"], "name its mechanisms"),
  "nothing to draw": ("visualize", [], "--zoo"),
  "not a picture": ("visualize", ["--zoo", "--out=zoo.jpg"], "--out=zoo.jpg"),
  "nowhere to draw": ("visualize", ["--zoo", "--out=no/such/zoo.png"], "--out=no/such/zoo.png"),
  "no page to make": ("report", [], "give either --workdir=DIR, or --kept=NAME"),
  "a folder without rows": ("report", ["--workdir=nowhere"], "--workdir=nowhere holds no run"),
  "kept results that are not there": ("report", ["--kept=recal"], "did you mean 'recall'?: give one of"),
  "an unknown format": ("report", ["--workdir=other", "--formats=jpg"], "'jpg' is not one of svg, png, pdf"),
  "positions that a variant has no use for": (
    "recall",
    ["--attention=mla", "--config.model.positions=rope"],
    "has positions of its own",
  ),
}


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "empty.txt").write_text("")
  (tmp_path / "noise.txt").write_bytes(b"text \xff\xfe text\n" * 500)
  for kind, size in (("cats", (8, 8)), ("dogs", (8, 9))):
    (tmp_path / "mixed" / kind).mkdir(parents=True)
    Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / "mixed" / kind / "0.png")
  return tmp_path


@pytest.fixture(scope="module")
def other():
  from attention_lab import config as configs
  from attention_lab.tasks import recall

  return json.dumps({"experiment": "recall", "config": json.loads(configs.to_json(recall.Config()))})


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_one_line_and_nothing_is_written(name, run, folder, other):
  (folder / "other").mkdir()
  (folder / "other" / "config.json").write_text(other)
  before = sorted(folder.rglob("*"))
  binary, arguments, message = CASES[name]
  result = run(binary, *arguments)
  assert result.returncode == 2, result.stderr[-2000:]
  assert message in result.stderr
  assert result.stderr.count("\n") == 1, result.stderr
  assert "Traceback" not in result.stderr
  assert sorted(folder.rglob("*")) == before
