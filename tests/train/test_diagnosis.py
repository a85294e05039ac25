import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.train import diagnosis, loop
from attention_lab.train.diagnosis import WINDOW, Diagnosis


def test_norms_are_by_layer_at_any_depth_and_the_rest_by_top_level_name():
  block = lambda value: {"mlp": {"up": {"kernel": jnp.full((2, 2), value)}}, "norm": {"scale": jnp.zeros(3)}}
  tree = {
    "tokens": {"embedding": jnp.full((4,), 3.0)},
    "decoder": {"layers": {"0": block(1.0), "10": block(2.0)}, "norm": {"scale": jnp.full((1,), 5.0)}},
    "players": {"0": None},
  }
  norms = {name: float(value) for name, value in diagnosis.norms(tree).items()}
  assert norms == pytest.approx({"layer_0": 2.0, "layer_10": 4.0, "tokens": 6.0, "decoder": 5.0})
  two = diagnosis.norms({"encoder": {"layers": {"0": block(1.0)}}, "decoder": {"layers": {"0": block(2.0)}}})
  assert {name: float(value) for name, value in two.items()} == {"encoder/layer_0": 2.0, "decoder/layer_0": 4.0}


def told(norms, steps=3 * WINDOW, seeds=(0,)):
  """What is said of a run of these typical norms, which vary by a factor of three from step to step."""
  rng, looked, lines = np.random.default_rng(0), Diagnosis(seeds), []
  for step in range(1, steps + 1):
    draw = lambda: {f"grad_norm/{name}": value * 3 ** rng.uniform(-1, 1) for name, value in norms.items()}
    lines += looked.record(step, [{"loss": 1.0, "grad_norm": 1.0, **draw()} for _ in seeds])
  return lines


HEALTHY = {"layer_0": 0.01, "layer_1": 0.3, "layer_2": 1.0, "tokens": 0.002, "head": 20.0}


@pytest.mark.parametrize("norm, word", [(1e-8, "vanishes"), (0.0, "vanishes"), (1e8, "explodes")])
def test_a_layer_whose_gradients_vanish_or_explode_is_named_once(norm, word):
  (line,) = told(HEALTHY | {"layer_1": norm})
  assert line.startswith(f"layer_1 {word}: its gradient norm is ")
  assert f"up to step {WINDOW}" in line
  assert told(HEALTHY | {"layer_1": norm}, steps=WINDOW - 1) == []


def test_each_seed_is_looked_at_by_itself():
  lines = told({"layer_0": 1e-9, "tokens": 1.0, "head": 1.0}, seeds=(3, 5))
  assert [line.split(":")[0] for line in lines] == ["layer_0 of seed 3 vanishes", "layer_0 of seed 5 vanishes"]


@pytest.mark.parametrize("norms", [HEALTHY, {"layer_0": 1.0}, {"tokens": 1e-9, "head": 1.0, "layer_0": 1.0}])
def test_a_healthy_run_is_not_named_and_neither_is_a_single_part_or_an_embedding(norms):
  assert told(norms) == []


def test_a_step_whose_gradients_are_not_finite_does_not_count():
  looked, lines = Diagnosis((0,)), []
  for step in range(1, 2 * WINDOW):
    broken = step % 2 == 0
    row = {"grad_norm/layer_0": float("nan") if broken else 1.0, "grad_norm/layer_1": 1.0, "grad_norm/head": 1.0}
    lines += looked.record(step, [row])
  assert lines == []


def test_a_run_records_the_norms_of_its_parts(tiny, config, one_device, tmp_path):
  loop.run(tiny(), config(steps=3), tmp_path, mesh=one_device, log=lambda line: None)
  first = (tmp_path / "metrics.jsonl").read_text().splitlines()[0]
  assert all(f'"grad_norm/{name}"' in first for name in ("tokens", "attention", "norm", "mlp", "head"))
