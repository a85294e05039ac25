"""The README's code blocks run, and its table of variants is true."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from attention_lab.attention import spec
from attention_lab.certify import battery, report

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SMALL = ["--config.model.width=16", "--config.model.layers=1", "--config.batch=8"]


def block(marker):
  return re.search(rf"<!-- {re.escape(marker)} -->\n```\w+\n(.*?)```", README, re.DOTALL)[1]


def commands(text):
  return [shlex.split(line) for line in text.replace("\\\n", "").splitlines() if "python -m experiments" in line]


def run(words, folder):
  env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
  return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=folder, env=env)


def test_the_one_command_compares_with_no_flag_at_all(tmp_path):
  (line,) = commands(block("compare").partition("&& ")[2].partition("&& ")[2])
  assert line == ["python", "-m", "experiments.compare"]
  result = run([*line[1:], *SMALL, "--steps=2", "--seeds=1"], tmp_path)
  assert result.returncode == 0, result.stderr
  assert (tmp_path / "runs" / "compare" / "report.html").exists()


def test_the_commands_to_train_evaluate_and_generate_run(tmp_path):
  for words in commands(block("train")):
    small = [*SMALL, "--config.steps=3"] if "language_modeling" in words[2] else []
    result = run([*words[1:], *small], tmp_path)
    assert result.returncode == 0, result.stderr


def test_the_layer_of_ones_own_runs():
  scope = {}
  exec(block("flax"), scope)
  layer = scope["MyAttention"](32, 4, nnx.Rngs(0))
  assert layer(jax.random.normal(jax.random.key(0), (2, 7, 32))).shape == (2, 7, 32)
  assert jnp.isfinite(layer(jnp.ones((1, 1, 32)))).all()


def test_the_two_files_of_a_new_variant_are_enough(tmp_path, monkeypatch):
  package = tmp_path / "readme_pkg"
  package.mkdir()
  (package / "__init__.py").write_text("")
  (package / "power.py").write_text(block("file: variants/power.py"))
  scope = {}
  (package / "case.py").write_text(block("file: cases/power.py"))
  monkeypatch.syspath_prepend(tmp_path)
  exec("from readme_pkg import case", scope)
  variant = spec.parse("readme_pkg.power:Power(power=4)")
  certificate = battery.certify(variant, scope["case"], quick=True)
  assert not certificate.failures, report.text(certificate)
  assert {"equals its oracle", "extend in any split"} <= {f.claim for f in certificate.findings if f.status == "proved"}


def table():
  return re.search(r"<!-- variants -->\n(.*?)<!-- /variants -->", README, re.DOTALL)[1].strip().splitlines()


def test_the_table_holds_what_each_variant_claims():
  without_proofs = [line.rsplit("|", 2)[0] for line in table()]
  rows = [(spec.parse(row), case) for case in battery.cases().values() for row in case.SPECS]
  claimed = [battery.Certificate(spec.to_string(variant), (), battery.facts(variant)) for variant, _ in rows]
  assert without_proofs == [line.rsplit("|", 2)[0] for line in report.markdown(claimed).splitlines()]


@pytest.mark.long
def test_the_table_is_what_certify_prints():
  words = ["-m", "experiments.certify", "--attention=all", "--markdown"]
  assert run(words, ROOT).stdout.strip().splitlines() == table()
