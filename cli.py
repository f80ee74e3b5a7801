"""The command line: parse, call one function, print. Heavy imports happen inside the command that needs them."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import click

from vidx import __version__
from vidx.cli_config import config
from vidx.cli_dupes import dupes
from vidx.cli_encoders import encoders
from vidx.cli_eval import evaluate
from vidx.cli_index import index, verify
from vidx.cli_options import store_option
from vidx.cli_prune import prune
from vidx.cli_search import search, sql
from vidx.cli_tag import tag
from vidx.cli_teach import teach
from vidx.cli_train import train
from vidx.config import default_store
from vidx.errors import Interrupted, VidxError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vidx")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def vidx(debug: bool) -> None:
    """Make a private video archive searchable by what happens in it, offline.

    \b
      vidx index /archive
      vidx search "a person climbing stairs"
    """


for command in (index, search, sql, tag, teach, dupes, evaluate, train, encoders, prune, verify, config):
    vidx.add_command(command)


@vidx.command()
@store_option
@click.option(
    "--failed", is_flag=True, help="List the files that failed or are partial, with reason and first bad time."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(store_path: Path | None, failed: bool, as_json: bool) -> None:
    """Count what the store holds."""
    from vidx.export import aligned
    from vidx.export.table import trouble_line
    from vidx.schema.store import Store
    from vidx.search.status import status as read_status
    from vidx.search.status import troubles

    store = Store.open(store_path or default_store())
    if not failed:
        facts = read_status(store)
        click.echo(json.dumps(facts) if as_json else aligned(facts))
    elif as_json:
        click.echo(json.dumps({"failed": [asdict(trouble) for trouble in troubles(store)]}))
    else:
        for trouble in troubles(store):
            click.echo(trouble_line(trouble))


def main() -> None:
    """Entry point: every error a user can meet becomes one line on standard error and an exit code."""
    debug = "--debug" in sys.argv[1:2]
    if not debug and sys.stderr is not None:  # which it is where standard error is closed
        _mute_libraries()
    # NumPy's products here are small, and its threads spin for one another, on a busy machine longer than they work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        code = vidx(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except VidxError as error:
        _fail(f"{error}; {error.hint}" if error.hint else str(error), error.exit_code, debug)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code, debug)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", Interrupted.exit_code, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; nobody is there to be told
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename or 'the output'}: {error.strerror or error}", 1, debug)
    except Exception as error:
        _fail(f"unexpected {type(error).__name__}: {error}; `vidx --debug ...` shows where", 1, debug)


def _mute_libraries() -> None:
    """Keep what libraries print past Python, as a panic of Rust on a full disk, from standard error."""
    ours = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    sys.stderr = ours


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()
    from vidx.export import shown

    click.echo("Error: " + shown(" ".join(message.split())), err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
