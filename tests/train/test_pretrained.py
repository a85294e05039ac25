import dataclasses
import json

import jax
import numpy as np
import pytest

from attention_lab import config as configs
from attention_lab.tasks import base as tasks
from attention_lab.train import loop, optimizer, pretrained
from attention_lab.train import state as states

SILENT = lambda line: None


@dataclasses.dataclass
class DataConfig(configs.DataConfig):
  vocabulary: int = 300


@dataclasses.dataclass
class Config(configs.Config):
  data: DataConfig = dataclasses.field(default_factory=DataConfig)


@pytest.fixture(autouse=True)
def known(monkeypatch):
  module = dataclasses.make_dataclass("Module", ["Config"])
  monkeypatch.setattr(tasks, "load", lambda name: module(Config))


def fine_tune(config, **changes):
  plain = config(**changes)
  return Config(
    **{field.name: getattr(plain, field.name) for field in dataclasses.fields(plain) if field.name != "data"}
  )


@pytest.fixture(scope="module")
def before(tiny, config, one_device, tmp_path_factory):
  """The folder of a run of two steps."""
  folder = tmp_path_factory.mktemp("pretrained")
  loop.run(tiny(), fine_tune(config, steps=3), folder, mesh=one_device, log=SILENT)
  return folder


def test_the_arrays_that_fit_are_taken_over_and_the_line_says_what_stays_fresh(before, config, tiny, one_device):
  params_before = pretrained.initial(fine_tune(config), before)
  rule = optimizer.make_optimizer(config().optimizer, 8)
  state = states.init_state(tiny(), rule, (7, 8), one_device)
  fresh = jax.device_get(state.params)
  params = jax.tree.map(lambda leaf: leaf, state.params)
  params["head"]["kernel"] = params["head"]["kernel"][:, :, :3]
  params["mlp"]["up"]["bias"] = params["mlp"]["up"]["bias"][:, :5]
  merged, line = pretrained.overlaid(params, params_before, has_seed_axis=True)
  assert (
    line == "9 of 11 arrays are the pre-trained ones; fresh: head, mlp/up/bias; 2 of the pre-trained have no place here"
  )
  for seed in (0, 1):
    np.testing.assert_array_equal(merged["tokens"]["embedding"][seed], params_before["tokens"]["embedding"])
    np.testing.assert_array_equal(merged["head"]["kernel"][seed], fresh["head"]["kernel"][seed, :, :3])
  assert merged["tokens"]["embedding"].sharding == state.params["tokens"]["embedding"].sharding
  with pytest.raises(ValueError, match="none of the pre-trained arrays has a place"):
    pretrained.overlaid({"other": {"kernel": params["head"]["kernel"]}}, params_before)


def test_a_run_begins_from_them_and_goes_on_without_the_folder(before, config, tiny, one_device, tmp_path):
  asked, lines, calls = fine_tune(config, steps=4, checkpoint__every=2), [], []

  def initial():
    calls.append(1)
    return pretrained.initial(asked, before)

  assert pretrained.is_needed(tmp_path / "run")
  (result,) = loop.run(tiny(), asked, tmp_path / "run", mesh=one_device, log=lines.append, initial=initial)
  assert "11 of 11 arrays are the pre-trained ones; fresh: none" in lines
  (fresh,) = loop.run(tiny(), asked, None, mesh=one_device, log=SILENT)
  assert result["metrics"]["test"]["loss"] != fresh["metrics"]["test"]["loss"]
  (tmp_path / "run" / "final.json").unlink()
  assert not pretrained.is_needed(tmp_path / "run")
  loop.run(tiny(), asked, tmp_path / "run", mesh=one_device, log=SILENT, initial=initial)
  assert len(calls) == 1


def test_a_model_that_does_not_match_is_refused_with_all_fields(before, config):
  other = fine_tune(config)
  other.model.width, other.model.attention, other.model.norm, other.data.vocabulary = 128, "linear", "rms", 8192
  with pytest.raises(ValueError, match="is of another model") as error:
    pretrained.check(other, before)
  for message in (
    "config.model.width is 64 there and 128 here",
    "config.model.head_width is 32 there and 64 here",
    'config.model.attention is "softmax" there and "linear" here',
    'config.model.norm is "layer" there and "rms" here',
    "config.data.vocabulary is 300 there and 8192 here",
  ):
    assert message in str(error.value)
  same = fine_tune(config, model__kv_heads=2, model__head_width=32, model__attention="softmax()", steps=99, batch=4)
  assert pretrained.check(same, before).steps == 3


def test_a_folder_that_is_no_single_run_is_refused(before, config, tmp_path):
  with pytest.raises(ValueError, match=r"has no config\.json"):
    pretrained.initial(fine_tune(config), tmp_path)
  record = json.loads((before / "config.json").read_text())
  (tmp_path / "config.json").write_text(json.dumps(record | {"seeds": [0, 1]}))
  with pytest.raises(ValueError, match="holds 2 seeds"):
    pretrained.check(fine_tune(config), tmp_path)
  (tmp_path / "config.json").write_text(json.dumps(record))
  with pytest.raises(ValueError, match="has no checkpoint that can be read"):
    pretrained.initial(fine_tune(config), tmp_path)
  assert not (tmp_path / "checkpoints").exists()


def test_a_folder_without_a_run_is_named_by_its_own_flag(tmp_path, config):
  with pytest.raises(ValueError, match=r"--config\.pretrained=\S+ has no config\.json"):
    pretrained.check(config(), tmp_path)
