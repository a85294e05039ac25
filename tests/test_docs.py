"""The commands and code of README, docs and CONTRIBUTING run, their tables are true, and their links lead somewhere."""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from attention_lab.attention import spec
from attention_lab.certify import battery, certified, report
from attention_lab.results import records, statistics

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
README = TEXTS["README.md"]
SMALL = ["--config.model.width=16", "--config.model.layers=1", "--config.batch=8"]
TRAIN = (*SMALL, "--config.steps=3")
SHORTER = {  # flags that make a written command a matter of seconds
  "compare": (*SMALL, "--steps=2", "--seeds=1", "--trials=0", "--match=none", "--workers=1", "--nohuge_pages"),
  "benchmark": ("--lengths=16,32", "--rounds=3", "--mode=forward"),
  "certify": ("--quick",),
  "matrix": ("--attention=softmax",),
  **dict.fromkeys(("recall", "language_modeling", "masked_language_modeling", "text_classification"), TRAIN),
  **dict.fromkeys(("image_classification", "long_range", "mechanisms", "question_answering"), TRAIN),
}
ABSENT = ("DIR", "FOLDER", "--peers", "--coordinator", "--suite", "--workdir=mine")  # datasets, hosts, hours
PARSE = """
import json, os, runpy, sys
import attention_lab.cli, attention_lab.tasks.language_modeling  # what all programs import, once
attention_lab.cli._guarded = lambda *_: 0  # parse, and do nothing
for words in json.loads(sys.argv[1]):
  child = os.fork()
  if not child:
    sys.argv = words[2:]
    runpy.run_module(words[2], run_name="__main__", alter_sys=True)
  if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
    print(*words, file=sys.stderr)
    sys.exit(1)
"""


def block(marker, page="README.md"):
  return re.search(rf"<!-- {re.escape(marker)} -->\n```\w+\n(.*?)```", TEXTS[page], re.DOTALL)[1]


def commands(text):
  lines = text.replace("\\\n", "").splitlines()
  return [shlex.split(line[line.index("python -m") :]) for line in lines if "python -m experiments." in line]


def written_commands():
  """Every command of every page: (page, words)."""
  blocks = [(page, each) for page, text in TEXTS.items() for each in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)]
  return [(page, command) for page, each in blocks for command in commands(each)]


def run(arguments, folder):
  env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
  return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=folder, env=env)


def recall_table(done, width="64"):
  """The means of the front page's rows, from the kept ones, in their order there."""
  lines = []
  for name in re.findall(r"^\| `([^`]+)` \|", block_of_table("recall"), re.MULTILINE):
    rows = [row for row in done if row["attention"] == f"{name}@width={width}"]
    score = statistics.interval([row["metrics"]["accuracy"] for row in rows])
    (state,) = {row["state_bytes"] for row in rows}
    lines.append(f"| `{name}` | {score.mean:.3f} ± {score.half:.3f} | {state / 1024:.3g} |")
  return lines


def block_of_table(marker, page="README.md"):
  return re.search(rf"<!-- {marker} -->\n(.*?)<!-- /{marker} -->", TEXTS[page], re.DOTALL)[1].strip()


def test_the_front_page_is_short():
  assert len(README.splitlines()) <= 150


def test_the_table_of_the_front_page_is_what_the_kept_rows_say():
  kept_rows = records.read(ROOT / "experiments" / "results" / "recall" / "results.jsonl").rows
  table = recall_table([row for row in kept_rows if row["status"] == "done"])
  assert len(table) > 3
  assert table == block_of_table("recall").splitlines()[2:]


def suites():
  """The cells of the table of suites, by name."""
  table = block_of_table("suites", "docs/results/index.md")
  lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
  return {re.search(r"\w+", cells[0])[0]: cells[1:] for cells in lines}


@pytest.mark.parametrize("name", suites())
def test_what_is_said_of_a_suite_is_what_its_kept_rows_say(name):
  folder = ROOT / "experiments" / "results" / name
  done = [row for row in records.read(folder / "results.jsonl").rows if row["status"] == "done"]
  rows = len({row["attention"] for row in done})
  assert suites()[name][1] == f"{rows} × {len({row['seed'] for row in done})}"
  means = re.findall(r"-?\d\.\d{3,}", (folder / "report.md").read_text())
  quoted = re.findall(r"\d\.\d{3}", suites()[name][-1])
  assert [number for number in quoted if not any(abs(float(mean) - float(number)) <= 5.1e-4 for mean in means)] == []


def test_every_written_command_has_flags_that_exist(tmp_path):
  written = [command for _, command in written_commands()]
  assert len(written) > 20
  result = run(["-c", PARSE, json.dumps(written)], tmp_path)
  assert result.returncode == 0, result.stderr


def test_the_commands_of_the_front_page_run(tmp_path):
  (tmp_path / "power.py").write_text(block("file: power.py"))
  for marker in ("compare", "train", "own"):
    for command in commands(block(marker)):
      result = run([*command[1:], *SHORTER.get(command[2].rpartition(".")[2], ())], tmp_path)
      assert result.returncode == 0, result.stderr
  assert (tmp_path / "runs" / "first" / "report.html").exists()


@pytest.mark.parametrize("index", range(2))
def test_the_python_of_the_quick_start_runs(index):
  code = re.findall(r"```python\n(.*?)```", TEXTS["docs/quick_start.md"], re.DOTALL)[index]
  scope = {}
  exec(code, scope)
  if "MyAttention" in scope:
    layer = scope["MyAttention"](32, 4, nnx.Rngs(0))
    assert layer(jax.random.normal(jax.random.key(0), (2, 7, 32))).shape == (2, 7, 32)
    assert jnp.isfinite(layer(jnp.ones((1, 1, 32)))).all()
  else:
    assert scope["out"].shape == scope["v"].shape


def test_the_two_files_of_a_new_variant_are_enough(tmp_path, monkeypatch):
  package = tmp_path / "docs_pkg"
  package.mkdir()
  (package / "__init__.py").write_text("")
  page = "docs/add_a_variant.md"
  (package / "power.py").write_text(block("file: variants/power.py", page))
  scope = {}
  (package / "case.py").write_text(block("file: cases/power.py", page))
  monkeypatch.syspath_prepend(tmp_path)
  exec("from docs_pkg import case", scope)
  variant = spec.parse("docs_pkg.power:Power(power=4)")
  certificate = battery.certify(variant, scope["case"], quick=True)
  assert not certificate.failures, report.text(certificate)
  assert {"equals its oracle", "extend in any split"} <= {f.claim for f in certificate.findings if f.status == "proved"}


def table():
  return block_of_table("variants", "docs/variants/index.md").splitlines()


def test_the_table_of_variants_is_what_the_kept_certificates_say():
  variants = [spec.parse(row) for row, _ in battery.specs()]
  assert report.markdown(filter(None, map(certified.recorded, variants))).splitlines() == table()


def test_every_variant_has_a_map():
  drawn = {path.stem for path in (ROOT / "docs" / "assets" / "maps").glob("*.png")}
  assert drawn == set(battery.cases())


@pytest.mark.parametrize("page", TEXTS)
def test_links_between_files_lead_somewhere(page):
  links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", TEXTS[page])
  made = {f"docs/variants/{name}.md" for name in battery.cases()}
  made |= {f"docs/results/{path.parent.name}.md" for path in (ROOT / "experiments" / "results").glob("*/report.md")}
  targets = [os.path.relpath((ROOT / page).parent / link, ROOT) for link in links]
  assert [target for target in targets if not (ROOT / target).exists() and target not in made] == []


@pytest.mark.long
@pytest.mark.parametrize("page", TEXTS)
def test_the_written_commands_of_a_page_run(page, tmp_path):
  (tmp_path / "power.py").write_text(block("file: power.py"))
  (tmp_path / "equation.py").write_text(block("file: equation.py", "docs/add_a_variant.md"))
  (tmp_path / "reviews.csv").write_text("text,label\n" + "".join(f"word {n} and {n % 7},{n % 2}\n" for n in range(60)))
  (tmp_path / "experiments").mkdir()
  shutil.copytree(ROOT / "experiments" / "results", tmp_path / "experiments" / "results")
  for command in [command for source, command in written_commands() if source == page]:
    if not any(absent in word for absent in ABSENT for word in command):
      short = () if "--verify" in " ".join(command) else SHORTER.get(command[2].rpartition(".")[2], ())
      result = run([*command[1:], *short], tmp_path)
      assert result.returncode == 0, f"{command}: {result.stderr}"


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").glob("*.ipynb")))
def test_a_notebook_runs(name, tmp_path):
  env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
  arguments = ["-m", "nbconvert", "--to", "notebook", "--execute", "--output", "executed.ipynb"]
  arguments.append(shutil.copy(ROOT / "examples" / name, tmp_path))  # it writes into the folder that it stands in
  result = subprocess.run(
    [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path, env=env
  )
  assert result.returncode == 0, result.stderr[-2000:]
