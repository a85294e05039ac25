"""Classes of other people's: the sound ones pass, and what does not fit the interface gets one line that says how."""

import inspect
import re
import textwrap

import faults
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sound_strangers
import sound_strangers_scans
from faults import frozen

from attention_lab.attention import spec
from attention_lab.attention.base import EVERY_MASK, Attention, Claims
from attention_lab.attention.mask import CAUSAL
from attention_lab.certify import battery, interface, report
from attention_lab.certify.finding import FAILED, PROVED
from attention_lab.certify.under_test import FastProgram

SOUND = [
  kind
  for module in (sound_strangers, sound_strangers_scans)
  for kind in vars(module).values()
  if inspect.isclass(kind) and kind.__module__ == module.__name__ and kind is not sound_strangers.Dense
]
# What is asked daily of all of them, and what has given a false alarm on one.
DAILY = (interface.CLAIM, "every hyper-parameter acts", "golden table", "honours explicit")
GRADIENT = "gradient equals differences in float64"
ALARMS = (
  (sound_strangers_scans.SquaredRelu, GRADIENT, False),
  (sound_strangers_scans.OnlineSoftmax, GRADIENT, False),
  (sound_strangers.HeadByHead, "memory in T", False),
  (sound_strangers.Dropout, "sharded equals unsharded", True),
)
FEW = (
  interface.CLAIM,
  "groups of heads are blocks",
  "queries are independent",
  "extend of ragged rows",
  "golden table",
)


@pytest.fixture(autouse=True)
def _as_at_home():
  """Other people's code promotes ranks, and its programs serve nobody else."""
  with jax.numpy_rank_promotion("allow"):
    yield
  jax.clear_caches()


def test_there_are_twenty_of_them():
  assert len(SOUND) >= 20


@pytest.mark.parametrize("kind", SOUND, ids=lambda kind: kind.__name__)
def test_a_sound_class_fails_no_claim_that_is_asked_daily(kind):
  certificate = battery.certify(kind(), None, quick=True, claims=DAILY)
  assert not certificate.failures, report.text(certificate)


@pytest.mark.parametrize(("kind", "claim", "quick"), ALARMS)
def test_a_sound_class_does_not_fail_where_others_of_its_kind_did(kind, claim, quick):
  finding = battery.prove(claim, kind(), quick=quick)
  assert finding.status == PROVED, finding.detail


@pytest.mark.long
@pytest.mark.parametrize("kind", SOUND, ids=lambda kind: kind.__name__)
def test_a_sound_class_fails_no_claim_at_all(kind):
  certificate = battery.certify(kind())
  assert not certificate.failures, report.text(certificate)
  assert certificate.count(PROVED) >= 15


@frozen
class OneLength(faults.Dense):
  """A mask as long as the queries, which does not fit other keys."""

  def attend(self, params, q, k, v, call):
    assert q.shape[1] == k.shape[1], "one length for all"
    return super().attend(params, q, k, v, call)


@frozen
class ByIndex(faults.Dense):
  """A mask of indices, where a cache has positions."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, k, v, call._replace(positions=type(call.positions)()))


@frozen
class Unnormalised(faults.Dense):
  """Weights that do not sum to 1, under the default claim of exact softmax."""

  def weights(self, logits, readable):
    return jnp.where(readable, jax.nn.sigmoid(logits), 0.0)


@frozen
class NoDecoding(Attention):
  """No mask is claimed, and decoding is left at its default."""

  def claims(self):
    return Claims(memory_exponent=2)

  def attend(self, params, q, k, v, call):
    return faults.Dense().attend(params, q, k, v, call)


@frozen
class Transposed(faults.Dense):
  """Heads before tokens in the output."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, k, v, call).transpose(0, 2, 1, 3)


@frozen
class Pair(faults.Dense):
  """Output and weights, as torch returns them."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, k, v, call), None


@frozen
class Whole(faults.Dense):
  """An output of whole numbers."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, k, v, call).astype(jnp.int32)


@frozen
class FourArguments(faults.Dense):
  """An `attend` as in another library."""

  def attend(self, q, k, v, mask):
    return v


@frozen
class Unmade(faults.Dense):
  """Reads a parameter that no `init` makes."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q * params["scale"], k, v, call)


@frozen
class Misspelt(faults.Dense):
  """Claims a mask that there is not."""

  def claims(self):
    return Claims(masks=frozenset({"padding"}))


@frozen
class Dictionary(faults.Dense):
  """Claims in a dict."""

  def claims(self):
    return {"masks": EVERY_MASK}


@frozen
class BadExtend(faults.Dense):
  """An `extend` that forgets the state."""

  def extend(self, params, state, q, k, v, *, x=None, lengths=None, mask=CAUSAL):
    return self.attend(params, q, k, v, None)


MISFITS = {
  faults.Ungrouped: r"^supports_gqa=True is claimed, and a call with 4 query heads .* or claim supports_gqa=False$",
  OneLength: r"cross=True is claimed, and a call with 5 queries of 7 keys ends in AssertionError: one length for all",
  ByIndex: r"^decode=True is claimed, and a sequence in pieces, .*: split 4\+1\+4.*call\.positions\), or claim dec",
  Unnormalised: r"^exactness='exact' is claimed, and a call .*: equal values do not pass .*, or claim exact",
  NoDecoding: r"^decode=True is claimed without the mask 'causal': add it to masks, or claim decode=False$",
  BadExtend: r"^decode=True is claimed, and extend ends in AttributeError.*: mend it, or claim decode=False$",
  Transposed: r"attend returns the shape \(2, 4, 5, 2\): it must return B T N V, here \(2, 5, 4, 2\)$",
  Pair: r"attend returns tuple: it must return an array B T N V, or AttentionOutput$",
  Whole: r"attend returns int32: it must return floating-point numbers$",
  FourArguments: r"^attend takes \(q, k, v, mask\): it must take \(self, params, q, k, v, call\): too many positional",
  Unmade: r"reads 'scale', which init does not make: return it from init\(self, key, dims\)$",
  Misspelt: r"^claims the masks padding, which are none of causal, window, ",
  Dictionary: r"^claims\(\) returns dict: it must return Claims",
}


@pytest.mark.parametrize("kind", MISFITS, ids=lambda kind: kind.__name__)
def test_a_claim_that_does_not_fit_is_one_line_that_says_how_to_give_it_up(kind):
  certificate = battery.certify(kind(), None, quick=True, claims=FEW)
  (failure,) = certificate.failures
  assert failure.claim == interface.CLAIM
  assert re.search(MISFITS[kind], failure.detail), failure.detail
  assert "\n" not in failure.detail


FILES = {
  "broken": ("def f(:\n", "importing {} ends in SyntaxError"),
  "needs": ("import no_such_package\n", "No module named 'no_such_package'"),
  "raises": ("1 / 0\n", "importing {} ends in ZeroDivisionError: division by zero"),
  "other_name": ("class Mines: pass\n", "{} has no Mine, did you mean 'Mines'?"),
  "no_variant": ("class Mine: pass\n", "{}:Mine is not a variant: it must be a frozen dataclass"),
  "no_attend": (
    """
    @dataclasses.dataclass(frozen=True)
    class Mine(Attention):
      def claims(self):
        return Claims()
    """,
    "{}:Mine is not a variant: it does not define attend",
  ),
  "no_dataclass": (
    """
    class Mine(Attention):
      k: int = 3
      def claims(self):
        return Claims()
      def attend(self, params, q, k, v, call):
        return q
    """,
    "{}:Mine is no dataclass: write @dataclasses.dataclass(frozen=True) above it",
  ),
  "not_frozen": (
    """
    @dataclasses.dataclass
    class Mine(Attention):
      pass
    """,
    "cannot inherit non-frozen dataclass from a frozen one",
  ),
  "needs_k": (
    """
    @dataclasses.dataclass(frozen=True)
    class Mine(Attention):
      k: int
      def claims(self):
        return Claims()
      def attend(self, params, q, k, v, call):
        return q
    """,
    "{}.Mine needs k: write {}.Mine(k=…)",
  ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_holds_no_variant_is_refused_in_one_line(name, tmp_path, monkeypatch):
  text, message = FILES[name]
  head = "import dataclasses\nfrom attention_lab.attention.base import Attention, Claims\n"
  (tmp_path / f"strange_{name}.py").write_text(head + textwrap.dedent(text))
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ValueError) as error:
    spec.parse(f"strange_{name}:Mine")
  assert message.replace("{}", f"strange_{name}") in str(error.value)


def test_a_nan_of_the_fast_compilation_alone_is_not_the_functions():
  program = FastProgram(lambda x: x / x)
  hasty = program.fast
  program.fast = lambda x: hasty(x) * jnp.nan
  np.testing.assert_array_equal(program(jnp.ones(3)), np.ones(3))
  assert np.isnan(FastProgram(lambda x: x / x)(jnp.zeros(3))).all()


def test_a_function_that_computes_in_float32_is_compared_in_float32_and_a_stopped_gradient_still_found():
  finding = battery.prove(GRADIENT, sound_strangers.Float32Logits())
  assert finding.status == PROVED, finding.detail
  assert "in float32, which the variant computes in" in finding.detail

  @frozen
  class Stopped(sound_strangers.Float32Logits):
    def attend(self, params, q, k, v, call):
      return super().attend(params, q, jax.lax.stop_gradient(k), v, call)

  @frozen
  class Scaled(sound_strangers.Float32Logits):
    def attend(self, params, q, k, v, call):
      return super().attend(params, q, k, v + 0.05 * (v - jax.lax.stop_gradient(v)), call)

  for kind in (Stopped, Scaled):
    assert battery.prove(GRADIENT, kind()).status == FAILED
