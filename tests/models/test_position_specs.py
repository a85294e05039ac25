"""Specs of positions, and the rule for which layer takes which code."""

import pytest

from attention_lab.attention import spec
from attention_lab.attention.base import Dims, Unsupported
from attention_lab.models.position_encodings import Bias2d, Learned
from attention_lab.models.position_specs import NAMES, check_widths, layer_encoding, parse, resolve, to_string
from attention_lab.models.rope import Rope, Rotation

FLAG = "--config.model.positions"


@pytest.mark.parametrize(
  "attention, comes_to",
  [
    ("softmax", "rope"),
    ("alibi", "none"),
    ("alibi|relative", "none"),
    ("softmax|alibi", "rope"),
    ("pooling", "learned"),
    ("fourier", "learned"),
    ("softmax|pooling", "rope+learned"),
    ("alibi|fourier", "learned"),
  ],
)
def test_auto_gives_each_layer_what_its_variant_needs(attention, comes_to):
  codes = resolve("auto", spec.layers(attention, 2))
  assert to_string(codes) == comes_to
  assert resolve(comes_to, spec.layers(attention, 2)) == codes


@pytest.mark.parametrize(
  "text, canonical",
  [(name, name) for name in (*NAMES, "none")]
  + [
    ("rope(scaling='yarn', factor=4.0, length=1024)", "rope(scaling='yarn', factor=4.0, length=1024)"),
    ("rope(500000.0, 0.5)", "rope(base=500000.0, fraction=0.5)"),
    (" rope( base=10000.0 ) ", "rope"),
    ("rope2d(base=10000.0)", "rope2d(base=10000.0)"),
    ("bias2d + sincos2d+rope2d", "bias2d+sincos2d+rope2d"),
  ],
)
def test_a_spec_has_one_short_form_that_parses_to_the_same_codes(text, canonical):
  assert to_string(parse(text)) == canonical
  assert parse(canonical) == parse(text)


def test_codes_act_only_in_layers_that_can_take_them_and_have_no_positions_of_their_own():
  names = ("softmax", "linear", "alibi", "pooling", "fourier", "softmax+local")
  turned = {name for name in names if layer_encoding(parse("rope+learned"), spec.parse(name), Rotation)}
  biased = {name for name in names if layer_encoding(parse("bias2d+learned"), spec.parse(name), Bias2d)}
  assert turned == {"softmax", "linear", "softmax+local"}
  assert biased == {"softmax", "softmax+local"}
  assert layer_encoding((Learned(),), spec.parse("softmax"), Rotation) is None
  assert layer_encoding(parse("rope(base=50.0)"), spec.parse("softmax"), Rotation) == Rope(base=50.0)


@pytest.mark.parametrize(
  "text, message",
  [
    ("lerned", f"{FLAG}=lerned is unknown, did you mean 'learned'?; choices: auto, none"),
    ("rope3d(base=2.0)", f"{FLAG}=rope3d is unknown, did you mean 'rope2d'?"),
    ("rope(facto=2.0)", f"{FLAG}=rope(facto=2.0): rope has no hyper-parameter 'facto', did you mean 'factor'?"),
    ("rope(scaling='yran', factor=2.0)", "rope: scaling=yran is unknown, did you mean 'yarn'?"),
    ("rope(base='big')", "rope: base='big' must be float"),
    ("rope(base=big)", "rope: arguments are literals"),
    ("rope(factor=2.0)", "rope: factor=2.0 needs scaling='linear', 'ntk' or 'yarn'"),
    ("rope(scaling='ntk', factor=0.5)", "rope: factor=0.5 must be at least 1"),
    ("rope(scaling='linear', factor=2.0, length=8)", "rope: length=8 belongs to scaling='yarn'"),
    ("rope(beta=8.0)", "rope: beta=8.0 belongs to scaling='yarn'"),
    ("rope(scaling='yarn', factor=2.0)", "rope: scaling='yarn' needs length"),
    ("rope(scaling='yarn', length=8, alpha=40.0)", "rope: alpha=40.0 must be at least 0 and below beta=32.0"),
    ("rope(fraction=0.0)", "rope: fraction=0.0 must lie in (0, 1]"),
    ("rope2d(base=1.0)", "rope2d: base=1.0 must be above 1"),
    ("rope(", "is malformed"),
    ("rope|learned", "is malformed: codes hold for all layers"),
    ("2*rope", "is malformed: codes hold for all layers"),
    ("auto+learned", "auto stands alone"),
    ("none()", "none stands alone"),
    ("rope+rope2d", "rope and rope2d both act on queries and keys; give one of the two"),
    ("learned+sincos2d", "learned and sincos2d both act on embeddings"),
  ],
)
def test_a_wrong_spec_is_refused_in_one_line(text, message):
  with pytest.raises(ValueError) as caught:
    resolve(text, spec.layers("softmax", 1), grid=True)
  assert message in str(caught.value)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  "text, attention, message",
  [
    ("rope", "softmax|pooling", "positions=rope turns queries and keys, and pooling lacks them; give auto or learned"),
    ("rope2d", "pooling", "rope2d turns queries and keys, and pooling lacks them; give sincos2d or learned"),
    ("rope+learned", "pooling", "rope turns queries and keys, and pooling lacks them"),
    ("rope", "alibi", "rope: alibi has positions of its own; give auto or none"),
    ("bias2d", "alibi", "bias2d: alibi has positions of its own"),
    ("bias2d", "softmax|linear", "bias2d adds to logits, and linear honours no bias; give sincos2d or learned"),
  ],
)
def test_a_variant_that_cannot_take_a_code_is_refused_by_name(text, attention, message):
  with pytest.raises(Unsupported) as caught:
    resolve(text, spec.layers(attention, 2), grid=True)
  assert message in str(caught.value)


@pytest.mark.parametrize(
  "text, attention", [("rope+learned", "softmax|pooling"), ("bias2d+rope2d", "softmax|linear"), ("rope", "softmax|t5")]
)
def test_each_layer_needs_one_code_and_each_code_one_layer(text, attention):
  assert resolve(text, spec.layers(attention, 2), grid=True) == parse(text)


@pytest.mark.parametrize("text, instead", [("sincos2d", "sinusoidal"), ("rope2d", "rope"), ("bias2d", "rope")])
def test_codes_of_rows_and_columns_need_a_grid(text, instead):
  with pytest.raises(ValueError, match=f"positions={text} needs images; give {instead}"):
    resolve(text, spec.layers("softmax", 2))


@pytest.mark.parametrize(
  "text, head, message",
  [
    ("rope", 3, "rope needs a --config.model.head_width that 2 divides, not 3"),
    ("rope2d", 6, "rope2d needs a --config.model.head_width that 4 divides, not 6"),
    ("rope(fraction=0.5)", 6, "fraction=0.5 of --config.model.head_width=6 is 3 channels; give one that is a positive"),
    ("rope(fraction=0.3)", 8, "is 2.4 channels"),
    ("rope(scaling='ntk')", 2, "scaling='ntk' needs 4 channels that turn"),
    ("sinusoidal", 4, "sinusoidal needs a --config.model.width that 2 divides, not 7"),
    ("sincos2d", 4, "sincos2d needs a --config.model.width that 4 divides, not 7"),
  ],
)
def test_widths_that_the_codes_cannot_halve_are_refused(text, head, message):
  with pytest.raises(ValueError) as caught:
    check_widths(parse(text), Dims(model=7, heads=2, kv_heads=2, head=head, value=head, max_len=4))
  assert message in str(caught.value)


def test_widths_that_fit_pass():
  dims = Dims(model=8, heads=2, kv_heads=2, head=20, value=20, max_len=4)
  for text in ("none", "rope(fraction=0.1)", "rope(fraction=0.3)", "rope2d(fraction=0.2)", "sincos2d", "bias2d"):
    check_widths(parse(text), dims)
