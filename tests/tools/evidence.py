"""Make docs/evidence.md of what test runs noted: ``python -m tests.tools.evidence FILE [--check]``.

``FILE`` is what ``BOT_BOTTLE_TEST_EVIDENCE=FILE make test`` wrote, or ``.ci/run`` with that variable. With
``--check`` nothing is written; a line that no test of the run stood for, or of which one failed, is an error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

from bot_bottle.verify.battery import all_cases
from tests.support.evidence import LINES, lines_of

PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"
_COLUMNS = {
    "bubblewrap": "bubblewrap",
    "docker": "docker",
    "gvisor": "gVisor",
    "smolmachines": "microVM",
    "": "any",
}

_HEAD = """\
# Evidence

Made by `python -m tests.tools.evidence` from one run of all tests; not written by hand. Each line is a way
out that was open in some tool of this kind. A number is how many tests of it passed with that backend (an
attack from inside a bottle counts for each account that it ran for); *any* are those that need no bottle, or
bring their own. `bot-bottle verify` makes the attacks marked so on your own machine. What a line leaves open
is said in its last column, and more of it in [security.md](security.md).

| line | attack | verify | {columns} | files | what stays open |
| --- | --- | --- | {rules} | --- | --- |
"""


def main() -> int:
    """Read what was noted and write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    passed: dict[str, Counter[str]] = defaultdict(Counter)
    files: dict[str, set[str]] = defaultdict(set)
    failed: set[str] = set()
    for text in arguments.file.read_text().splitlines():
        record = json.loads(text)
        for line in lines_of(record["test"]):
            if record["outcome"] == "passed":
                passed[line][record["backend"]] += 1
                files[line].add(record["test"].partition("::")[0].rpartition("/")[2])
            elif record["outcome"] == "failed":
                failed.add(line)
    wrong = [f"{line}: a test of it failed" for line in sorted(failed)]
    wrong += [
        f"{line}: no test stood for it"
        for line, about in LINES.items()
        if not passed[line] and not about.open
    ]
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    if not arguments.check and not wrong:
        PAGE.write_text(_page(passed, files))
        print(f"{PAGE} written")
    return 1 if wrong else 0


def _page(passed: dict[str, Counter[str]], files: dict[str, set[str]]) -> str:
    made = {line for case in all_cases() for line in case.id.split()}
    rows = []
    for line, about in LINES.items():
        cells = [str(passed[line][backend] or "") for backend in _COLUMNS]
        where = " ".join(f"`{name}`" for name in sorted(files[line]))
        cells = [line, about.attack, "yes" if line in made else "", *cells, where, about.open]
        rows.append("| " + " | ".join(cells) + " |")
    head = _HEAD.format(columns=" | ".join(_COLUMNS.values()), rules=" | ".join("---:" for _ in _COLUMNS))
    return head + "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
