import dataclasses

import pytest

from attention_lab.train import checks, loop


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"steps": 0}, "--config.steps=0 is less than 1"),
    ({"batch": 0}, "--config.batch=0 is less than 1"),
    ({"optimizer__learning_rate": -1.0}, "--config.optimizer.learning_rate=-1.0 is less than 0"),
    ({"optimizer__learning_rate": float("nan")}, "--config.optimizer.learning_rate=nan is not a finite number"),
    ({"optimizer__warmup": 8}, "--config.optimizer.warmup=8 and --config.steps=8: the warm-up must be shorter"),
    ({"optimizer__warmup": -2}, "--config.optimizer.warmup=-2 is less than -1"),
    ({"optimizer__accumulate": 3}, "--config.batch=8 in 3 micro-batches cannot be split over data 1 × fsdp 1 devices"),
    ({"optimizer__accumulate": 3}, "--config.batch=8 in 3 micro-batches cannot be split"),
    ({"checkpoint__every": 2, "checkpoint__keep": 0}, "--config.checkpoint.keep=0 would keep none"),
    ({"model__heads": 0, "batch": -8}, "--config.batch=-8"),
    ({"checkpoint__select": "bets"}, "--config.checkpoint.select=bets is unknown, did you mean 'best'"),
    ({"checkpoint__select": "best"}, "--config.evaluate_every=0 has one evaluation to choose from"),
    ({"data__folds": 1}, "--config.data.folds=1 leaves nothing to train on"),
    ({"data__folds": 3, "data__fold": 3}, "--config.data.fold=3 with --config.data.folds=3: the fold is one of 0"),
    ({"data__fold": 1}, "--config.data.fold=1 with --config.data.folds=0: give the number of folds"),
    ({"data__fold": -1}, "--config.data.fold=-1 is less than 0"),
  ],
)
def test_numbers_that_cannot_be_trained_with_are_refused_in_one_line(changes, message, config, one_device):
  with pytest.raises(ValueError, match="--config") as error:
    checks.check(config(**changes), one_device, (0,))
  assert message in str(error.value)
  assert "\n" not in str(error.value)
  checks.check(config(), one_device, (0, 1))


@pytest.mark.parametrize("seeds", [(0, 0), (-1,), (2**32,)])
def test_seeds_are_distinct_and_fit_in_32_bits(seeds, config, one_device):
  with pytest.raises(ValueError, match="seed"):
    checks.check(config(), one_device, seeds)


def test_a_validation_split_that_is_the_test_split_is_refused_by_its_digest(tiny, config, one_device):
  source = tiny().source
  twice = dataclasses.replace(source, digests={"train": "a1", "validation": "b2", "test": "b2"})
  with pytest.raises(ValueError, match="the validation and the test split of tiny are the same") as error:
    loop.run(dataclasses.replace(tiny(), source=twice), config(), None, mesh=one_device)
  assert "b2" in str(error.value)
  for digests in ({}, {"validation": "", "test": ""}, {"validation": "b2", "test": "c3"}):
    checks.check_source(dataclasses.replace(source, digests=digests), config())


def test_folds_that_a_task_did_not_cut_are_refused(tiny, config):
  source, asked = tiny().source, config(data__folds=3, data__fold=1)
  with pytest.raises(ValueError, match="the splits of tiny are not cut into folds by this task"):
    checks.check_source(source, asked)
  checks.check_source(dataclasses.replace(source, metadata={"fold": {"folds": 3, "fold": 1}}), asked)
