"""A configuration survives a round trip through JSON and flags."""

import pytest

from attention_lab import config as configs


def test_json_round_trips():
  config = configs.Config(steps=7)
  config.model.attention = "local(window=3)"
  assert configs.from_json(configs.Config, configs.to_json(config)) == config


def test_json_with_an_unknown_field_is_refused_by_name():
  with pytest.raises(ValueError, match=r"config\.model\.wdth is not a field"):
    configs.from_json(configs.Config, '{"model": {"wdth": 3}}')


@pytest.mark.parametrize(
  ("word", "name", "value"),
  [
    ("--config.steps=5", "config.steps", 5),
    ("--config.model.dropout=0.5", "config.model.dropout", 0.5),
    ("--config.model.shared_layers=true", "config.model.shared_layers", True),
  ],
)
def test_a_flag_sets_its_field_in_its_type(word, name, value):
  config = configs.Config()
  configs.override(config, word)
  assert configs.flatten(config)[name] == value


@pytest.mark.parametrize(
  "word", ["--config.stepz=5", "--config.steps=x", "--config.model=3", "--config.model.shared_layers=2"]
)
def test_a_wrong_flag_is_refused(word):
  with pytest.raises(ValueError, match="--config"):
    configs.override(configs.Config(), word)
