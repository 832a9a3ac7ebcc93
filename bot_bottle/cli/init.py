"""``bot-bottle init [NAME]``."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot_bottle import paths, process
from bot_bottle.cli import terminal
from bot_bottle.errors import BotBottleError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot_bottle.manifest.starter import Answers, StarterRemote

_KEY_FILES = ("id_ed25519", "id_ecdsa", "id_rsa")


@click.command("init")
@click.argument("name", required=False)
@click.option("--provider", metavar="TEMPLATE", help="The program that runs.")
@click.option("--token-var", metavar="NAME", help="The host variable that holds the provider's credential.")
@click.option("--api-key-var", metavar="NAME", help="The host variable of an API key, in place of a login.")
@click.option("--command", "words", metavar="WORDS", help="The program and its arguments (provider command).")
@click.option("--host", "hosts", multiple=True, metavar="HOST", help="A host it may reach; may be repeated.")
@click.option(
    "--remote", metavar="URL", help="The git remote it works on (default: asks about this folder's origin)."
)
@click.option("--no-remote", is_flag=True, help="Do not ask about this folder's origin.")
@click.option("--identity-file", metavar="PATH", help="The ssh key for that remote.")
@click.option("--remote-token-var", metavar="NAME", help="The host variable of a token for an https remote.")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing; take what is usual.")
def command(  # noqa: PLR0913 - one for each option
    *,
    name: str | None,
    provider: str | None,
    token_var: str | None,
    api_key_var: str | None,
    words: str | None,
    hosts: tuple[str, ...],
    remote: str | None,
    no_remote: bool,
    identity_file: str | None,
    remote_token_var: str | None,
    yes: bool,
) -> None:
    """Write the bottle and the agent NAME (default: this folder's name) after a few questions.

    Nothing is ever overwritten, and what is written passes `bot-bottle check`.
    """
    from bot_bottle.manifest.starter import Answers, starter_files  # noqa: PLC0415

    asker = _Asker(silent=yes)
    if not yes and not terminal.is_interactive():
        raise UsageError(
            "there is no terminal to ask on; pass --yes and what you want, see bot-bottle init --help"
        )
    cwd = terminal.current_folder()
    chosen = _name(asker, name, cwd)
    template = _template(asker, provider)
    _check_api_key(template, api_key_var, token_var, words)
    no_keys: tuple[str, tuple[str, ...], bool] = ("", (), False)
    token, argv, forward = no_keys if api_key_var else _provider_keys(asker, template, token_var, words)
    reached = _hosts(asker, hosts)
    declared = None if no_remote else _remote(asker, remote, identity_file, remote_token_var, cwd)
    if declared is None and remote_token_var is not None:
        raise UsageError("--remote-token-var is for an https remote, and none is declared; add --remote URL")
    answers = Answers(
        name=chosen,
        template=template,
        auth_token=token,
        api_key=api_key_var or "",
        argv=argv,
        forward_host_credentials=forward,
        hosts=reached,
        remote=declared,
        git_user=(_own_git("user.name"), _own_git("user.email")),
    )
    bottle, agent = starter_files(answers)
    _write(answers, bottle, agent, cwd)


class _Asker:
    """Asks on the terminal until an answer will do; silent, it takes the default."""

    def __init__(self, *, silent: bool) -> None:
        self.silent = silent

    def ask(self, question: str, default: str, check: Callable[[str], object]) -> str:
        while True:
            text = default if self.silent else terminal.ask(question, default)
            try:
                check(text)
            except ValueError as error:
                if self.silent:
                    raise UsageError(f"{question}: {text!r} {error}") from error
                terminal.say([f"  {error}"])
            else:
                return text


def _name(asker: _Asker, given: str | None, cwd: Path) -> str:
    from bot_bottle.manifest.starter import checked  # noqa: PLC0415
    from bot_bottle.manifest.values import name_reference  # noqa: PLC0415

    if given is not None:
        name = checked(name_reference, given, f"{given!r}:")
    else:
        usual = re.sub(r"[^a-z0-9]+", "-", cwd.name.lower()).lstrip("-0123456789")[:40].rstrip("-")
        name = asker.ask("Name of the bottle and the agent", usual or "my-agent", name_reference)
    for path in (paths.bottles_dir() / f"{name}.md", paths.agents_dir() / f"{name}.md"):
        if path.is_symlink() or path.exists():
            raise UsageError(f"{path} is there already; choose another name, or: bot-bottle edit {name}")
    return name


def _template(asker: _Asker, given: str | None) -> str:
    from bot_bottle.agent_provider.registry import DEFAULT_TEMPLATE, known_templates  # noqa: PLC0415
    from bot_bottle.manifest.starter import checked  # noqa: PLC0415

    usable = known_templates()

    def known(text: str) -> None:
        if text not in usable:
            raise ValueError(f"is no provider of this version; choose one of: {', '.join(usable)}")

    if given is not None:
        return checked(known, given, f"--provider {given!r}")
    return asker.ask(f"Provider ({', '.join(usable)})", DEFAULT_TEMPLATE, known)


def _check_api_key(template: str, variable: str | None, token_var: str | None, words: str | None) -> None:
    if variable is None:
        return
    from bot_bottle.agent_provider.registry import provider_named  # noqa: PLC0415
    from bot_bottle.manifest.starter import checked  # noqa: PLC0415
    from bot_bottle.manifest.values import token_name  # noqa: PLC0415

    if token_var is not None:
        raise UsageError("--token-var and --api-key-var both name a credential; keep one of them")
    if "api_key" not in provider_named(template).MANIFEST_KEYS:
        raise UsageError(f"--api-key-var does not go with the provider {template}; leave it out")
    if words is not None:
        raise UsageError(f"--command does not go with the provider {template}; leave it out")
    checked(token_name, variable, "--api-key-var")


def _provider_keys(
    asker: _Asker, template: str, token_var: str | None, words: str | None
) -> tuple[str, tuple[str, ...], bool]:
    from bot_bottle.agent_provider.registry import asked_keys, provider_named  # noqa: PLC0415
    from bot_bottle.manifest.starter import checked  # noqa: PLC0415
    from bot_bottle.manifest.values import token_name  # noqa: PLC0415

    keys = asked_keys(template)
    for option, value, key in (("--token-var", token_var, "auth_token"), ("--command", words, "argv")):
        if value is not None and key not in keys:
            api_key = key == "auth_token" and "api_key" in provider_named(template).MANIFEST_KEYS
            instead = ", or name the variable of an API key with --api-key-var" if api_key else ""
            raise UsageError(f"{option} does not go with the provider {template}; leave it out{instead}")
    token, argv = "", ""
    if "auth_token" in keys:
        token = (
            checked(token_name, token_var, "--token-var")
            if token_var is not None
            else asker.ask("Host variable that holds the provider's token", keys["auth_token"], token_name)
        )
    if "argv" in keys:
        if words is None and asker.silent:
            raise UsageError("--command is missing; write for example --command 'my-agent --run'")
        argv = (
            checked(_some_words, words, "--command")
            if words is not None
            else asker.ask("Program and arguments", keys["argv"], _some_words)
        )
    return token, tuple(shlex.split(argv)), "forward_host_credentials" in keys


def _some_words(text: str) -> None:
    if not shlex.split(text):
        raise ValueError("names no program; write for example my-agent --run")


def _hosts(asker: _Asker, given: tuple[str, ...]) -> tuple[str, ...]:
    from bot_bottle.manifest.hosts import parse_host_pattern  # noqa: PLC0415
    from bot_bottle.manifest.starter import checked  # noqa: PLC0415

    def named(host: str) -> str:
        try:
            return parse_host_pattern(host)
        except ValueError as error:
            raise ValueError(f"{host!r} {error}") from error

    for host in given:
        checked(parse_host_pattern, host, f"--host {host!r}")
    text = (
        ""
        if given
        else asker.ask(
            "Hosts it may reach besides the provider's, with spaces between them (none)",
            "",
            lambda text: [named(host) for host in _parts(text)],
        )
    )
    return tuple(dict.fromkeys(parse_host_pattern(host) for host in (given or _parts(text))))


def _parts(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _remote(
    asker: _Asker, given: str | None, identity_file: str | None, token_var: str | None, cwd: Path
) -> StarterRemote | None:
    from bot_bottle.manifest.remotes import parse_upstream  # noqa: PLC0415
    from bot_bottle.manifest.starter import StarterRemote, checked, upstream_of  # noqa: PLC0415
    from bot_bottle.manifest.values import host_path  # noqa: PLC0415

    upstream = upstream_of(given if given is not None else _origin(cwd))
    if given is not None and not upstream:
        checked(parse_upstream, given, "--remote")
    if not upstream:
        return None
    if given is None and asker.silent:
        # A stranger may have written this folder's configuration; only the operator's word opens a way out.
        terminal.say([f"bot-bottle: origin is not declared; to do so add --remote {upstream}"])
        return None
    if given is None and not terminal.confirm(f"Declare the git remote {upstream}?", usual=True):
        return None
    parts = parse_upstream(upstream)
    if parts.scheme == "https":
        return StarterRemote(upstream=upstream, token_ref=_remote_token(asker, token_var, upstream))
    if token_var is not None:
        raise UsageError(f"--remote-token-var is for an https remote, and {upstream} is none; leave it out")
    if identity_file is None:
        found = next((name for name in _KEY_FILES if (Path.home() / ".ssh" / name).is_file()), _KEY_FILES[0])
        identity_file = asker.ask("ssh key for it, a path of this machine", f"~/.ssh/{found}", host_path)
    checked(host_path, identity_file, "--identity-file")
    if not Path(identity_file).expanduser().is_file():
        make = f"make it (ssh-keygen -f {identity_file}) or change it"
        terminal.say([f"bot-bottle: {identity_file} is not there yet; {make}"])
    key = _known_key(f"[{parts.host}]:{parts.port}" if parts.port not in {None, 22} else parts.host)
    if not key:
        port = f" -p {parts.port}" if parts.port not in {None, 22} else ""
        unknown = f"{parts.host} is not in ~/.ssh/known_hosts; add its KnownHostKey before anything is pushed"
        scan = f"ssh-keyscan{port} -t ed25519 {parts.host}"
        terminal.say(
            [f"bot-bottle: {unknown}: {scan} shows one, to be compared with what the host itself publishes"]
        )
    return StarterRemote(upstream=upstream, identity_file=identity_file, known_host_key=key)


def _remote_token(asker: _Asker, given: str | None, upstream: str) -> str:
    """Give the variable with an https remote's token, ``""`` for none."""
    from bot_bottle.manifest.starter import checked  # noqa: PLC0415
    from bot_bottle.manifest.values import token_name  # noqa: PLC0415

    if given is not None:
        return checked(token_name, given, "--remote-token-var")
    question = "Host variable that holds a token for it, such as MY_GIT_TOKEN (none)"
    variable = asker.ask(question, "", lambda text: text and token_name(text))
    if not variable:
        terminal.say(
            [f"bot-bottle: without a token (TokenRef) {upstream} can be read where it is public, no more"]
        )
    return variable


def _own_git(key: str) -> str:
    """Give what the operator's own git says of them, ``""`` where that is nothing a bottle could have."""
    from bot_bottle.manifest.values import git_text  # noqa: PLC0415

    try:
        # Never the folder's configuration, which a stranger may have written.
        result = process.run(["git", "config", "--global", "--get", key])
        return git_text(result.stdout.decode("utf-8", "replace").strip()) if result.returncode == 0 else ""
    except (BotBottleError, ValueError):
        return ""


def _origin(cwd: Path) -> str:
    """Give the url of the folder's ``origin``, or ``""``; reading a configuration starts nothing."""
    try:
        result = process.run(["git", "config", "--get", "remote.origin.url"], cwd=cwd)
    except BotBottleError:
        return ""
    return result.stdout.decode("utf-8", "replace").strip() if result.returncode == 0 else ""


def _known_key(host: str) -> str:
    """Look a host's key up where the operator's ssh has it, hashed names included; ed25519 first."""
    from bot_bottle.manifest.remotes import known_host_key  # noqa: PLC0415

    try:
        result = process.run(["ssh-keygen", "-F", host])
    except BotBottleError:
        return ""
    lines = [
        line
        for line in result.stdout.decode("utf-8", "replace").splitlines()
        if line[:1] not in {"#", "@", ""}
    ]
    for line in sorted(lines, key=lambda line: "ssh-ed25519" not in line):
        try:
            return known_host_key(line.partition(" ")[2])
        except ValueError:
            continue
    return ""


def _write(answers: Answers, bottle: str, agent: str, cwd: Path) -> None:
    from bot_bottle.files import make_private_dir, write_new  # noqa: PLC0415
    from bot_bottle.manifest.model import Manifest  # noqa: PLC0415

    places = (
        (paths.bottles_dir() / f"{answers.name}.md", bottle),
        (paths.agents_dir() / f"{answers.name}.md", agent),
    )
    written: list[Path] = []
    try:
        for path, text in places:
            try:
                make_private_dir(path.parent)
                write_new(path, text.encode())
            except OSError as error:  # which of a full disk does not say what could not be written
                raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
            written.append(path)
        Manifest.resolve(cwd).bottle_for(answers.name)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    for path in written:
        print(path)
    then = f"bot-bottle start {answers.name} --cwd --dry-run"
    held = (answers.auth_token, answers.api_key, answers.remote.token_ref if answers.remote else "")
    variables = " ".join(f"{name}=..." for name in dict.fromkeys(held) if name)
    export = f"export {variables}, then " if variables else ""
    terminal.say([f"bot-bottle: {export}see what would start: {then}"])
