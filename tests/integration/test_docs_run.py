"""What the pages say to type is typed, line by line and in their order, and does what they say.

Each page has one prepared world: a home with the agents that it speaks of, an agent that is a script, servers
that answer for every host. Lines that cannot be run here, or that another test runs, are listed with why.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.doc_blocks import PAGES, Line, commands, shown
from tests.support.family import wait_until
from tests.support.lab import Lab
from tests.support.outside import REPO, accounts
from tests.support.reader import INTERRUPT, LEAVE, Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.lab import RunningBottle
    from tests.support.outside import World

pytestmark = pytest.mark.integration

#: Lines that are not typed here, and why. test_docs_commands.py holds each of ours against the program.
NOT_HERE = {
    "make demo": "run by test_demo.py",
    "make test": "this is its run",
    "bot-bottle verify": "run by test_verify.py",
    "bot-bottle dashboard": "run on a terminal by test_dashboard.py",
    "python3 -m venv ~/.venvs/bot-bottle && ~/.venvs/bot-bottle/bin/pip install .": "fetches packages",
    "export PATH=~/.venvs/bot-bottle/bin:$PATH": "goes with what was fetched; what runs here is on PATH",
    "pip install '.[docker]'": "fetches packages, and would change what these tests run on",
    "pip install '.[smolmachines]'": "fetches packages, and would change what these tests run on",
    "bot-bottle start NAME --backend docker": "needs an engine; the tests of every contract start there so",
    "bot-bottle start NAME --backend smolmachines": "needs KVM; tests.tools.machines starts there so",
    "sudo runsc install --runtime runsc-bottle -- --network=host": "changes this machine's engine",
    "sudo systemctl reload docker": "reloads this machine's engine",
    "docker image prune --all --filter label=bot-bottle.role=image": "removes an engine's images",
}
#: Run line by line, with what must be seen, by a test of its own.
TUTORIAL = "docs/tutorial.md"

_YES = {"[y/N] ": "y\n"}


@dataclass(frozen=True, kw_only=True)
class Step:
    """How a line is typed: what comes before, what is answered on a terminal, what has to be seen."""

    before: Callable[[], object] = lambda: None
    talk: dict[str, str] = field(default_factory=dict)
    after: str = ""
    code: int = 0
    seen: tuple[str, ...] = ()
    then: Callable[[str], object] = lambda _said: None


def read(reader: Reader, page: str, steps: dict[str, Step]) -> None:
    """Type a page's lines; each of ``steps`` must be one of them."""
    lines = [line for line in commands(REPO / page) if line.text not in NOT_HERE]
    assert set(steps) <= {line.text for line in lines}, "a line that the page does not have any more"
    for line in lines:
        _one(reader, line, steps.get(line.text, Step()))


def _one(reader: Reader, line: Line, step: Step) -> None:
    step.before()
    if step.talk or step.after:
        said = reader.talks(line.text, step.talk, code=step.code, after=step.after)
    else:
        done = reader.types(line.text, code=step.code)
        said = done.out + done.err
    for text in step.seen:
        assert reader.meant(text) in said, (line, said)
    step.then(said)


@pytest.fixture(scope="module")
def page_lab(lab: Lab, world: World) -> Callable[[], Lab]:
    """Make an installation for a page; the pages are read on the default backend, by one account."""
    if lab.backend != "bubblewrap" or lab.account.name != accounts()[0].name:
        pytest.skip("pages are read on the default backend by one account; others have the same commands")
    return lambda: Lab(world=world, account=lab.account, backend=lab.backend)


def command(script: str) -> str:
    """Write the bottle of an agent that is a script."""
    return f"agent_provider: {{template: command, argv: [/bin/sh, -c, {json.dumps(script)}]}}\n"


def repository(reader: Reader) -> None:
    """Make the reader's folder a repository with one commit."""
    (reader.cwd / "README").write_text("A project.\n")
    reader.lab.own()
    for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "Begin")):
        reader.git(*words)


def test_every_line_to_type_is_typed_somewhere() -> None:
    typed = {
        "README.md",
        TUTORIAL,
        *(f"docs/{name}.md" for name in ("headless", "running", "security", "supervise")),
    }
    for page in PAGES:
        lines = commands(page)
        left = {line.text for line in lines if line.page not in typed} - NOT_HERE.keys()
        assert not left, f"{page}: nobody types {left}"
    everywhere = {line.text for page in PAGES for line in commands(page)}
    assert NOT_HERE.keys() <= everywhere, "a reason for a line that no page has any more"


#: What stands for Claude Code: it hands out a login, and works as the page's agent does.
_CLAUDE = """#!/bin/sh
[ "$1" = setup-token ] && { echo sk-ant-oat01-of-nobody; exit 0; }
cd ~/workspace
echo "fixed" >> README
git -c user.name=A -c user.email=a@a.test commit -qam "Fix issue 12"
echo "more to do" > notes.txt
curl -sS https://registry.example.com/thing
exit 3
"""


def test_the_readme(page_lab: Callable[[], Lab]) -> None:
    lab, page = page_lab(), REPO / "README.md"
    text = page.read_text()
    for kind in ("bottles", "agents"):
        (found,) = re.findall(
            rf"`~/\.bot-bottle/({kind}/\w+\.md)`:\n\n```markdown\n(.*?)```", text, re.DOTALL
        )
        lab.write(*found)
    (lab.user_home / "bin").mkdir()
    (lab.user_home / "my-project").mkdir()
    claude = lab.user_home / "bin" / "claude"
    claude.write_text(_CLAUDE)
    claude.chmod(0o755)
    lab.own()
    reader = Reader(lab, claude)
    reader.cwd = lab.user_home / "my-project"
    repository(reader)
    reader.cwd = lab.user_home

    def kept(said: str) -> None:
        denial, _end = json.JSONDecoder().raw_decode(said[said.index("{") :])
        (example,) = (json.loads(one) for one in shown(page, "json"))
        assert example.keys() <= denial.keys()
        assert (denial["error"], denial["reason"]) == (example["error"], example["reason"])
        (state,) = [one for one in lab.states("implementer") if one["identity"] not in known]
        reader.words["implementer-x7k2p"] = str(state["identity"])

    known: set[str] = set()
    read(
        reader,
        "README.md",
        {
            "bot-bottle start implementer --cwd --dry-run": Step(
                seen=("docs.python.org", "BOT_BOTTLE_CLAUDE_OAUTH_TOKEN"),
                then=lambda said: "of-nobody" not in said or pytest.fail("a value is shown"),
            ),
            "bot-bottle start implementer --cwd": Step(
                talk=_YES,
                code=3,
                then=lambda _said: known.update(str(one["identity"]) for one in lab.states("implementer")),
            ),
            'bot-bottle start implementer --cwd --yes --headless --prompt "Fix issue 12"': Step(
                code=3, then=kept
            ),
            "bot-bottle diff implementer-x7k2p": Step(seen=("fixed", "more to do")),
            "bot-bottle pull implementer-x7k2p": Step(
                then=lambda _said: reader.git(
                    "log", "-1", "--format=%s", reader.meant("bottle/implementer-x7k2p")
                )
            ),
            "bot-bottle pull implementer-x7k2p --uncommitted": Step(
                then=lambda _said: reader.git(
                    "cat-file", "-e", reader.meant("bottle/implementer-x7k2p:notes.txt")
                )
            ),
        },
    )


def test_unattended_runs(page_lab: Callable[[], Lab]) -> None:
    lab, page = page_lab(), REPO / "docs" / "headless.md"
    for name in ("implementer", "reviewer", "porter"):
        lab.declare(name, command("echo done; curl -sS https://registry.example.com/"))
    reader = Reader(lab)
    repository(reader)
    (reader.cwd / "task.md").write_text("Fix issue 12\n")
    lab.own()

    def as_shown(said: str) -> None:
        told, _end = json.JSONDecoder().raw_decode(said[said.index("{") :])
        (example,) = [json.loads(one) for one in shown(page, "json")]
        assert told.keys() == example.keys()
        for key in ("decisions", "tokens"):
            assert told[key].keys() == example[key].keys()
        assert told["denials"][0].keys() == example["denials"][0].keys()
        assert (told["ended_by"], told["exit_code"]) == ("agent", 0)

    first, several = (line.text for line in commands(page))
    read(reader, "docs/headless.md", {first: Step(then=as_shown), several: Step(talk=_YES, seen=("porter",))})


_LIVES = "echo he''re; curl -sS https://denied.example.com/; exec sleep 600"


def test_bottles_that_run(page_lab: Callable[[], Lab]) -> None:
    lab = page_lab()
    lab.declare("worker", command(_LIVES))
    reader = Reader(lab)
    reader.words = {"NAME": "worker"}
    (reader.cwd / "task.md").write_text("Work.\n")
    lab.own()

    def status(identity: str) -> str:
        return str(next(one["status"] for one in lab.states("worker") if one["identity"] == identity))

    def identity_is(said: str) -> None:
        (reader.words["IDENTITY"],) = set(re.findall(r"worker-[a-z0-9]{5}", said))

    def stopped() -> None:
        assert lab.cli("stop", reader.words["IDENTITY"]).returncode == 0

    def runs_again() -> None:
        done = lab.cli("resume", reader.words["IDENTITY"], "--yes", "--detach")
        assert done.returncode == 0, done.err

    def second(_said: str) -> None:
        assert re.fullmatch(r"worker-[a-z0-9]{5}", reader.env["id"])
        assert status(reader.env["id"]) == "running"

    def opened() -> None:
        lab.declare("worker", command(_LIVES) + "egress: {routes: [{host: more.example.com}]}\n")

    def ends(text: str) -> Step:
        return Step(talk={text: INTERRUPT}, code=130)

    read(
        reader,
        "docs/running.md",
        {
            "bot-bottle start NAME --detach": Step(talk=_YES, after="runs without this", then=identity_is),
            "bot-bottle attach IDENTITY": Step(talk={"here": LEAVE}, after="goes on"),
            "bot-bottle resume IDENTITY --detach": Step(before=stopped, talk=_YES, after="runs without"),
            "id=$(bot-bottle start NAME -d --yes --headless --prompt-file task.md)": Step(then=second),
            "bot-bottle resume IDENTITY [--dry-run] [--detach]": Step(before=stopped, seen=("worker",)),
            "bot-bottle logs IDENTITY": Step(before=runs_again, seen=("denied.example.com",)),
            "bot-bottle logs IDENTITY -f": ends("denied.example.com"),
            "bot-bottle logs IDENTITY --denied --since 10m --host '*.example.com'": Step(
                seen=("host_not_allowed",)
            ),
            "bot-bottle logs IDENTITY -f --json": ends("denied.example.com"),
            "bot-bottle info IDENTITY [--json]": Step(seen=("IDENTITY",)),
            "bot-bottle dashboard --once [--json]": Step(seen=("IDENTITY",)),
            "bot-bottle apply IDENTITY --dry-run": Step(before=opened, seen=("more.example.com",)),
            "bot-bottle apply IDENTITY": Step(talk=_YES),
            "bot-bottle panic": Step(seen=("IDENTITY",)),
            "bot-bottle panic --stop": Step(seen=("IDENTITY",)),
            "bot-bottle stop IDENTITY": Step(before=runs_again),
            "bot-bottle rm IDENTITY [--stop]": Step(before=runs_again, talk=_YES),
            "bot-bottle list --all [--json]": Step(seen=("IDENTITY",)),
        },
    )
    assert lab.cli("stop", "--all").returncode == 0


def test_attacks_by_line(page_lab: Callable[[], Lab]) -> None:
    read(Reader(page_lab()), "docs/security.md", {"bot-bottle verify --only B10": Step(seen=("B10",))})


@pytest.fixture(scope="module")
def asking(page_lab: Callable[[], Lab]) -> Iterator[tuple[Lab, RunningBottle]]:
    """Run a bottle that may ask."""
    lab = page_lab()
    remote = "{Name: project, Upstream: 'https://git.example.com/me/project.git', TokenRef: GIT_TOKEN}"
    lab.declare(
        "asking",
        "agent_provider: {template: command, argv: [/bin/sh]}\nsupervise: true\n"
        f"git:\n  remotes:\n    git.example.com: {remote}\n"
        "egress:\n  routes:\n    - host: docs.python.org\n",
    )
    with lab.launch("asking", env={"GIT_TOKEN": "token-of-nobody-at-all"}) as bottle:
        yield lab, bottle


def test_an_agent_asks_and_a_human_answers(asking: tuple[Lab, RunningBottle]) -> None:
    lab, bottle = asking
    reader = Reader(lab)
    hosts = iter(f"host{number}.example.com" for number in range(9))

    def ask(word: str, tool: str, **arguments: Any) -> None:
        """Have the agent ask; the id of the request takes the place of ``word``."""
        params = {"name": tool, "arguments": {"reason": "to go on", **arguments}}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        headers = "-H 'Accept: application/json, text/event-stream' -H 'Content-Type: application/json'"
        bottle.sh(f"curl -sS -m 90 {headers} -d '{body}' $BOT_BOTTLE_SUPERVISE_URL >/dev/null 2>&1 &")
        found: list[dict[str, Any]] = []

        def come() -> bool:
            found[:] = lab.cli("requests", bottle.identity, "--json").json()
            return bool(found)

        wait_until(come, "a request")
        (one,) = found
        reader.words[word] = str(one["request"])

    def host() -> None:
        ask(
            "k3v9x2ab",
            "request_egress",
            host=next(hosts),
            paths=["/docs/", "/more/"],
            methods=["GET", "POST"],
        )

    def push() -> None:
        ask("q8d2m4ce", "request_git", remote="project", refs=["refs/heads/fix-12", "refs/heads/fix-13"])

    def written(_said: str) -> None:
        assert re.search(r"host\d\.example\.com", (lab.home / "bottles" / "asking.md").read_text())

    yes = Step(before=host, talk=_YES, seen=("this opens: ",))
    edit = Step(before=host, talk={"? [y/N] ": "y\n"}, then=written)
    read(
        reader,
        "docs/supervise.md",
        {
            "bot-bottle requests": Step(before=host, seen=("k3v9x2ab",)),
            "bot-bottle approve k3v9x2ab": Step(talk=_YES, seen=("this opens: ",)),
            "bot-bottle approve k3v9x2ab --for once": yes,
            "bot-bottle approve k3v9x2ab --path /docs/ --method GET": yes,
            "bot-bottle approve q8d2m4ce --branch fix-12 --for once": Step(
                before=push, talk=_YES, seen=("fix-12",)
            ),
            "bot-bottle approve k3v9x2ab --edit": edit,
            'bot-bottle deny k3v9x2ab "use the copy in ./docs"': Step(before=host),
        },
    )
    assert lab.cli("requests", "--json").json() == []
