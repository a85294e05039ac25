"""Every variant trains in every architecture that its claims allow, and the others name the missing capability.

The cells that train take most of a second each, to compile. Every day a covering design runs: each variant in one
architecture that allows it, by turns, and a few variants of different kinds in all of them; the rest is run by
`-m long`. Cells that are refused cost nothing and all run every day.
"""

import jax.numpy as jnp
import pytest
from flax import nnx

from attention_lab.attention import spec
from attention_lab.attention.base import Unsupported
from attention_lab.certify import battery
from attention_lab.models.functional import functional
from attention_lab.workflows import matrix
from attention_lab.workflows.architectures import ARCHITECTURES, on_image
from attention_lab.workflows.matrix import FAILED, RAN, REFUSED, Architecture, Cell, MissingCapability

ROWS = [case.SPECS[0] for case in battery.cases().values()]
MISSING = MissingCapability("no causal mask", "'causal'")


def missing(row, name):
  architecture = ARCHITECTURES[name]
  return architecture.missing(architecture.adapted(spec.parse(row)))


PAIRS = [(row, name) for row in ROWS for name in ARCHITECTURES]
ALLOWED = [(row, name) for row, name in PAIRS if missing(row, name) is None]
EVERYWHERE = ("softmax", "linear(chunk=4)", "fourier")  # exact, linear in time, without projections or masks


def turns():
  """One architecture for each variant: of those that allow it, the one that has come up least so far."""
  count = dict.fromkeys(ARCHITECTURES, 0)
  for row in ROWS:
    name = min((name for name in ARCHITECTURES if (row, name) in ALLOWED), key=count.__getitem__)
    count[name] += 1
    yield row, name


DAILY = list(dict.fromkeys([*turns(), *((row, name) for row, name in ALLOWED if row in EVERYWHERE)]))
REST = [pair for pair in ALLOWED if pair not in DAILY]
OTHERS = [pair for pair in PAIRS if pair not in ALLOWED]


@pytest.mark.parametrize(("row", "name"), [*DAILY, *(pytest.param(*pair, marks=pytest.mark.long) for pair in REST)])
def test_a_variant_trains_where_its_claims_allow_it(row, name):
  cell = matrix.cell(ARCHITECTURES[name], row)
  assert cell.status == RAN, cell.reason
  assert len(cell.losses) == matrix.STEPS


@pytest.mark.parametrize(("row", "name"), OTHERS)
def test_elsewhere_the_refusal_names_the_variant_and_what_it_lacks(row, name):
  cell = matrix.cell(ARCHITECTURES[name], row)
  assert (cell.status, cell.reason) == (REFUSED, missing(row, name).reason), cell.reason


def test_the_daily_cells_hold_every_variant_and_every_architecture():
  assert {name for _, name in turns()} == set(ARCHITECTURES)
  assert {row for row, _ in turns()} == set(ROWS)
  assert set(EVERYWHERE) <= set(ROWS)


def test_a_variant_takes_the_grid_of_an_image_where_it_can():
  assert on_image(spec.parse("axial(columns=3)")) == spec.parse("axial")
  assert on_image(spec.parse("divided_space_time(tokens=3)")) == spec.parse("divided_space_time(tokens=3)")
  assert on_image(spec.parse("local(window=3)")) == spec.parse("local(window=3)")


class Tiny(nnx.Module):
  def __init__(self):
    self.a, self.b = nnx.Param(jnp.ones(2)), nnx.Param(jnp.ones(3))


def raising(error):
  def loss(model, params, batch, key):
    raise error

  return loss


def both(model, params, batch, key):
  return jnp.sum(params["a"] ** 2) + jnp.sum(params["b"] ** 2), {}


def first(model, params, batch, key):
  return jnp.sum(params["a"] ** 2), {}


def infinite(model, params, batch, key):
  return jnp.sum(jnp.log(params["a"] - 1.0)) + jnp.sum(params["b"]), {}


FAULTS = {
  "nothing": (both, None, (), RAN, ""),
  "an unread part": (first, None, ("b",), RAN, ""),
  "a loss that is not finite": (infinite, None, (), FAILED, "not finite"),
  "a parameter without a gradient": (first, None, (), FAILED, "b does not move"),
  "an unread part that moves": (both, None, ("b",), FAILED, "b moves"),
  "taken against the claims": (both, MISSING, (), FAILED, "is taken, though its claims say: no causal mask"),
  "refused against the claims": (raising(Unsupported("Softmax, 'causal'")), None, (), FAILED, "its claims allow it"),
  "refused by name": (raising(Unsupported("Softmax has no 'causal'")), MISSING, (), REFUSED, "no causal mask"),
  "refused without the variant": (raising(ValueError("no 'causal'")), MISSING, (), FAILED, "not name the variant"),
  "refused for another reason": (raising(ValueError("Softmax is odd")), MISSING, (), FAILED, "what is missing"),
  "another error": (raising(ZeroDivisionError("in the model")), MISSING, (), FAILED, "ZeroDivisionError: in the model"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_cell_is_found(name):
  loss, capability, unread, status, reason = FAULTS[name]
  build = lambda attention: functional(lambda key: Tiny())
  tiny = Architecture("tiny", build, loss, dict, lambda variant: capability, unread=lambda variant: unread)
  cell = matrix.cell(tiny, "softmax")
  assert cell.status == status, cell.reason
  assert reason in cell.reason


class Owner(nnx.Module):
  def __init__(self):
    self.attention = nnx.Dict({"a": nnx.Param(jnp.ones(2)), "params": nnx.Dict({"later": nnx.Param(jnp.ones(2))})})


@pytest.mark.parametrize(("causal", "status"), [(True, RAN), (False, FAILED)])
def test_a_parameter_of_the_variants_own_may_be_idle_under_a_causal_mask_alone(causal, status):
  build = lambda attention: functional(lambda key: Owner())
  loss = lambda model, params, batch, key: (jnp.sum(params["attention"]["a"] ** 2), {})
  cell = matrix.cell(Architecture("tiny", build, loss, dict, lambda variant: None, causal=causal), "softmax")
  assert (cell.status, cell.still) == (status, ("attention/params/later",)), cell.reason


def test_the_table_has_a_row_for_each_variant_and_counts_the_cells_of_each_architecture():
  cells = [
    Cell("softmax", "decoder", RAN, still=("decoder/layers/0/attention/params/per_head/backward",)),
    Cell("identity", "decoder", RAN, still=("patches/kernel", "patches/bias")),
    Cell("softmax", "BERT", REFUSED, "no reason"),
    Cell("identity", "BERT", FAILED, "a|b"),
  ]
  assert matrix.markdown(cells, ["softmax", "identity"], ["decoder", "BERT", "ViT"]).splitlines() == [
    "| variant | decoder | BERT | ViT |",
    "|---|---|---|---|",
    "| `softmax` | ✓ (idle: backward) | no reason | not run |",
    "| `identity` | ✓ (idle: patches) | **FAILED** a\\|b | not run |",
    "| ran / refused / failed | 2 / 0 / 0 | 0 / 1 / 1 | 0 / 0 / 0 |",
  ]
