import pytest

from attention_lab.train import limits


@pytest.mark.parametrize(
  "changes, words",
  [
    ({"steps": 0}, "--config.steps=0 is less than 1"),
    ({"batch": 0}, "--config.batch=0 is less than 1"),
    ({"optimizer__learning_rate": -1.0}, "--config.optimizer.learning_rate=-1.0 is less than 0"),
    ({"optimizer__learning_rate": float("nan")}, "--config.optimizer.learning_rate=nan is less than 0"),
    ({"optimizer__warmup": 8}, "--config.optimizer.warmup=8 and --config.steps=8: the warm-up must be shorter"),
    ({"optimizer__accumulate": 3}, "--config.batch=8 in 3 micro-batches cannot be split"),
    ({"checkpoint__every": 2, "checkpoint__keep": 0}, "--config.checkpoint.keep=0 would keep none"),
    ({"model__heads": 0, "batch": -8}, "--config.batch=-8"),
  ],
)
def test_numbers_that_cannot_be_trained_with_are_refused_in_one_line(changes, words, config, one_device):
  with pytest.raises(ValueError, match="--config") as error:
    limits.check(config(**changes), one_device, (0,))
  assert words in str(error.value)
  assert "\n" not in str(error.value)
  limits.check(config(), one_device, (0, 1))


@pytest.mark.parametrize("seeds", [(0, 0), (-1,), (2**32,)])
def test_seeds_are_distinct_and_fit_in_32_bits(seeds, config, one_device):
  with pytest.raises(ValueError, match="seed"):
    limits.check(config(), one_device, seeds)
