"""Proves what attention variants claim, each from the outside, and shows a counter-example where a claim fails.

    python -m experiments.certify --attention=all --quick               # every variant, minutes on a laptop
    python -m experiments.certify --attention='softmax;local(window=3)'  # two of them, in full
    python -m experiments.certify --attention='my_pkg.my_file:Mine(k=3)' --json=mine.json

Exit code 0: everything that could be examined is proved; 1: a claim fails; 2: bad usage. `--markdown` prints the
README's table of variants instead. Expected: no claim fails. It runs where JAX runs; the claims about sharding take
eight devices, which a CPU has here by itself.
"""

import pathlib
import sys

import jax
from absl import flags

from attention_lab import cli
from attention_lab.attention import spec
from attention_lab.certify import battery, report
from attention_lab.certify.finding import Certificate

_ATTENTION = flags.DEFINE_string("attention", "all", "Variants to certify, separated by ';', or all.")
_JSON = flags.DEFINE_string("json", "", "File to write the certificates to, as JSON.")
_MARKDOWN = flags.DEFINE_bool("markdown", False, "Print the table of variants in Markdown, and nothing else.")
_QUICK = flags.DEFINE_bool(
  "quick", False, "Fewer shapes and draws, forward only where the full battery has gradients too."
)


def main() -> int:
  jax.config.update("jax_num_cpu_devices", 8)
  folder = pathlib.Path(_JSON.value).parent
  if _JSON.value and not folder.is_dir():
    raise ValueError(f"--json={_JSON.value}: there is no folder {folder}: make it first")
  certificates = []
  for certificate in _certificates(_ATTENTION.value):
    certificates.append(certificate)
    if not _MARKDOWN.value:
      print(report.text(certificate), end="\n\n", flush=True)
  failed = [certificate.spec for certificate in certificates if certificate.failures]
  if _MARKDOWN.value:
    print(report.markdown(certificates))
  else:
    verdict = f"a claim fails in {', '.join(failed)}" if failed else "no claim fails"
    print(f"{len(certificates)} certified: {verdict}")
  if _JSON.value:
    pathlib.Path(_JSON.value).write_text(report.to_json(certificates) + "\n")
  for name in failed if _MARKDOWN.value else ():
    print(f"error: a claim fails in {name}", file=sys.stderr)
  return 1 if failed else 0


def _certificates(rows: str):
  """Parses all rows before the first proof, so that a typing error costs no time."""
  if rows == "all":
    missing: tuple[Certificate, ...] = battery.without_case()
    wanted = [(spec.parse(row), case) for case in battery.cases().values() for row in case.SPECS]
  else:
    missing = ()
    wanted = [(variant, battery.case_of(variant)) for variant in map(spec.parse, spec.rows(rows))]
  yield from missing
  for variant, case in wanted:
    yield battery.certify(variant, case, quick=_QUICK.value)


if __name__ == "__main__":
  cli.run(main)
