"""``bot-bottle logs IDENTITY``."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

import click

from bot_bottle.cli import EXIT_INTERRUPTED, complete
from bot_bottle.errors import UsageError
from bot_bottle.events import log_of, read_events
from bot_bottle.record_lines import RecordFilter, read_events_wanted, read_since, record_line


@click.command("logs")
@click.argument("identity", shell_complete=complete.logged)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is decided, until the bottle ends.")
@click.option("--denied", is_flag=True, help="Only what was refused.")
@click.option(
    "--host", default="", metavar="NAME", help="Only this host, name or git remote; * is a wildcard."
)
@click.option("--event", "events", multiple=True, metavar="NAME", help="Only this kind of record.")
@click.option("--since", default="", metavar="WHEN", help="Only from 10m, 2h, 3d ago on, or from a time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def command(
    *,
    identity: str,
    follow: bool,
    denied: bool,
    host: str,
    events: tuple[str, ...],
    since: str,
    as_json: bool,
) -> int:
    """Show what was decided for IDENTITY, running or ended, as it falls.

    The lines are the bottle's audit log. With --follow it ends with the bottle, or with Ctrl-C.
    """
    chosen = RecordFilter(
        denied=denied,
        host=host,
        events=read_events_wanted(events),
        since=read_since(since, datetime.now(UTC)) if since else "",
    )
    path = log_of(identity)
    try:
        for record in read_events(identity, follow=follow):
            if chosen.wants(record):
                print(json.dumps(record, ensure_ascii=True) if as_json else record_line(record))
                if follow:
                    sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED  # the usual end of following: no words about it
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from error
    return 0
