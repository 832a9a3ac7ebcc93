"""The demo's last scene in the bottle: what a push may carry out, and whose credential it goes out with."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from bot_bottle.demo.evidence import SECONDS, error_text, last_line, places_of, told_line, whereabouts
from bot_bottle.demo.git_upstream import BRANCH, PROJECT
from bot_bottle.demo.stage import GIT_HOST, GIT_REMOTE, Outcome

if TYPE_CHECKING:
    from bot_bottle.backend.base import ExecResult
    from bot_bottle.demo.stage import GitStage, Stage

#: RFC 4648, 6: what the identifiers of the best-known cloud's keys are written in.
_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_FOLDER = "/tmp/demo-work"  # noqa: S108 - in the bottle, which is the agent's own


def push_scanned(stage: Stage) -> Outcome:
    """A commit with a cloud key is refused; without the key it lands, by a token the bottle never saw."""
    up = stage.git
    reason = stage.why_no_git or ("" if _has_git(stage) else "the bottle's image has no git in it")
    if up is None or reason:
        return Outcome(ok=True, skipped=reason, told=())
    key = "AKIA" + "".join(secrets.choice(_BASE32) for _ in range(16))
    url = f"https://{GIT_HOST}{PROJECT}"
    clone = f"git clone -q {url} {_FOLDER} && cd {_FOLDER} && git checkout -q -b {BRANCH}"
    commit = 'echo "aws_access_key_id = $KEY" > settings.ini && git add . && git commit -q -m "Add settings"'
    push = f"git push -q origin {BRANCH}"
    mend = 'echo "# the key comes from outside" > settings.ini && git commit -q -a --amend -m "Add settings"'
    refused = stage.bottle.exec(
        f"read -r KEY; {clone} && {commit} && {push}", stdin=f"{key}\n".encode(), timeout=2 * SECONDS
    )
    denied = last_line(stage, GIT_REMOTE)
    heard = _heard_a_push(up) or up.upstream.holds(key.encode())
    cleaned = stage.bottle.exec(f"cd {_FOLDER} && {mend} && {push}", timeout=2 * SECONDS)
    taken = last_line(stage, GIT_REMOTE)
    landed = up.upstream.branches().get(BRANCH) == "Add settings" and not up.upstream.holds(key.encode())
    found = places_of(stage, up.upstream.token)
    ok = (
        _explained(refused, key)
        and (denied.get("event"), denied.get("reason")) == ("git_push", "secret_found")
        and not heard
        and cleaned.returncode == 0
        and (taken.get("event"), taken.get("taken")) == ("git_push_result", True)
        and landed
        and _pushed_with_token(up)
        and not found
    )
    return Outcome(
        ok=ok,
        told=(
            ("tried", f"{clone} && {commit} && {push}"),
            *(("happened", line) for line in _lines(refused)),
            ("upstream", "HEARD OF IT" if heard else "heard nothing of that push"),
            told_line(denied),
            ("tried", f"{mend} && {push}"),
            ("happened", f"pushed {BRANCH}" if cleaned.returncode == 0 else error_text(cleaned)),
            (
                "upstream",
                f"has {', '.join(sorted(up.upstream.branches()))}; the push came with "
                + ("the operator's token" if _pushed_with_token(up) else "SOMETHING ELSE THAN THE TOKEN"),
            ),
            ("bottle", f"has no credential for {GIT_HOST}; {whereabouts(found)}"),
            told_line(taken),
        ),
    )


def _has_git(stage: Stage) -> bool:
    return stage.bottle.exec("command -v git", timeout=SECONDS).returncode == 0


def _heard_a_push(up: GitStage) -> bool:
    return any("git-receive-pack" in seen.target for seen in up.server.seen)


def _pushed_with_token(up: GitStage) -> bool:
    pushes = [seen for seen in up.server.seen if seen.target.endswith("/git-receive-pack")]
    return bool(pushes) and all(up.upstream.admits(seen) for seen in pushes)


def _explained(refused: ExecResult, key: str) -> bool:
    words = refused.stderr.decode(errors="replace")
    return refused.returncode != 0 and "settings.ini:1" in words and key not in words


def _lines(result: ExecResult) -> list[str]:
    """Give what git said on its error stream, line by line, as an agent reads it."""
    return result.stderr.decode(errors="replace").strip().splitlines() or [error_text(result)]
