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
from attention_lab.results import records, statistics

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


def recall_table(done):
  """Variants by their best mean, a column for each width, and the decoding state at the largest."""
  found = {}
  for row in done:
    variant, _, width = row["attention"].rpartition("@width=")
    scores, states = found.setdefault(variant, {}).setdefault(int(width), ([], set()))
    scores.append(row["metrics"]["accuracy"])
    states.add(row["state_bytes"])
  widths = sorted({width for cells in found.values() for width in cells})
  seeds = {len(scores) for cells in found.values() for scores, _ in cells.values()}
  assert len(seeds) == 1
  lines = [f"| variant | {' | '.join(f'width {width}' for width in widths)} | state at {widths[-1]}, KiB |"]
  lines.append("|---" * (len(widths) + 2) + "|")
  best = lambda cells: -max(statistics.interval(scores).mean for scores, _ in cells.values())
  for variant, cells in sorted(found.items(), key=lambda item: best(item[1])):
    shown = [statistics.interval(cells[width][0]) for width in widths]
    (state,) = cells[widths[-1]][1]
    words = " | ".join(f"{one.mean:.3f} ± {one.half:.3f}" for one in shown)
    lines.append(f"| `{variant}` | {words} | {state / 1024:.3g} |".replace("|taylor", r"\|taylor"))
  return "\n".join(lines)


def test_the_table_at_its_head_is_what_the_kept_rows_say():
  kept = records.read(ROOT / "experiments" / "results" / "recall" / "results.jsonl").rows
  assert recall_table([row for row in kept if row["status"] == "done"]) in README


def suites():
  """The cells of the README's table of suites, by name."""
  table = re.search(r"\| suite \|.*?\n\|[-|]+\n(.*?)\n\n", README, re.DOTALL)[1]
  return {cells[0].strip("` "): cells[1:] for line in table.splitlines() for cells in [line.strip("| ").split(" | ")]}


@pytest.mark.parametrize("name", suites())
def test_what_is_said_of_a_suite_is_what_its_kept_rows_say(name):
  folder = ROOT / "experiments" / "results" / name
  done = [row for row in records.read(folder / "results.jsonl").rows if row["status"] == "done"]
  rows = len({row["attention"] for row in done})
  assert suites()[name][1] == f"{rows} × {len({row['seed'] for row in done})}"
  means = re.findall(r"-?\d\.\d{3,}", (folder / "report.md").read_text())
  said = re.findall(r"\d\.\d{3}", suites()[name][-1])
  assert [number for number in said if not any(abs(float(mean) - float(number)) <= 5.1e-4 for mean in means)] == []


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
  claimed = [battery.Certificate(spec.to_string(variant), (), battery.metadata(variant)) for variant, _ in rows]
  assert without_proofs == [line.rsplit("|", 2)[0] for line in report.markdown(claimed).splitlines()]


@pytest.mark.long
def test_the_table_is_what_certify_prints():
  words = ["-m", "experiments.certify", "--attention=all", "--markdown"]
  assert run(words, ROOT).stdout.strip().splitlines() == table()
