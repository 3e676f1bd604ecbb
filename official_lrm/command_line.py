"""What the command-line tools share: errors as one line, lists in flags."""

import os
import sys

from absl import app, flags, logging

# Mistakes of the caller: wrong values, unknown names, missing files, an extra
# package that is not installed.
_USER_ERRORS = (ValueError, LookupError, OSError, ImportError)


def run(main):
    """Runs a tool's `main()`; a user's mistake ends in one line and status 1.

    Libraries' messages show from warnings on; `--verbosity=0` shows all of
    them, `--verbosity=1` the traceback of an error as well.

    Args:
        main: function without arguments; or a dict of them, of which the
            first argument names one.
    """
    app.run(lambda argv: _guarded(main, argv), flags_parser=_parse_flags)


def _parse_flags(argv):
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _report(f"error: {one_line(error)}; --help lists the flags")
        sys.exit(1)


def _guarded(main, argv):
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        rest = argv[1:]
        if isinstance(main, dict):
            main, rest = _chosen(main, rest)
        if rest:
            raise ValueError(
                f"takes flags only (--name=value); got {' '.join(rest)}"
            )
        main()
    except KeyboardInterrupt:
        _report("interrupted")
        return 130
    except BrokenPipeError:  # `… | head` has read what it wanted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not isinstance(error, _user_errors()):
            raise
        logging.debug("traceback", exc_info=True)
        _report(f"error: {one_line(error)}")
        return 1
    return 0


def _chosen(commands, arguments):
    name, *rest = arguments or ["nothing"]
    if name not in commands:
        raise ValueError(
            f"takes one of {', '.join(commands)}, then flags only "
            f"(--name=value); got {name}"
        )
    return commands[name], rest


def one_line(error) -> str:
    """The message of an exception on one line."""
    text = getattr(error, "message", None)
    if text is None and isinstance(error, KeyError) and error.args:
        text = str(error.args[0])  # str() of a KeyError is its repr.
    # What gin, which Model Garden's classes are wrapped in, adds to it.
    text = (text or str(error)).split("\n  In call to configurable ")[0]
    return " ".join((text or type(error).__name__).split())


def parse_integers(name, text) -> list[int]:
    """Reads a flag like "128,0,2304".

    Args:
        name: of the flag, for the error.
        text: integers separated by commas.

    Raises:
        ValueError: naming the flag and what it got.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--{name} must be integers separated by commas; got {text!r}"
        ) from None


_ARRANGEMENT = ("num_long", "placement", "long", "short")


def define_spans_flags(default):
    """Defines --spans and, for an arrangement, --num_long and its company.

    Args:
        default: what the spans are without these flags, for the help.
    """
    flags.DEFINE_string(
        "spans",
        None,
        "Memory length of each layer, separated by commas; without these "
        f"flags: {default}.",
    )
    flags.DEFINE_integer(
        "num_long", None, "Instead of --spans: number of long-range memories."
    )
    flags.DEFINE_string(
        "placement",
        "interleaved",
        "With --num_long: interleaved, first, last or middle.",
    )
    flags.DEFINE_integer("long", 2304, "With --num_long: span of long layers.")
    flags.DEFINE_integer("short", 128, "With --num_long: span of all others.")


def chosen_spans():
    """Reads the flags of `define_spans_flags`.

    Returns:
        (lengths, arrangement): a list of integers or None, and the keyword
        arguments of MemorySpans.arrange beside num_layers or None; at most one
        is not None.

    Raises:
        ValueError: if the flags contradict each other.
    """
    values = flags.FLAGS
    given = [name for name in _ARRANGEMENT if values[name].present]
    if values.spans is not None:
        if given:
            raise ValueError(f"give --spans or --{given[0]}, not both.")
        return parse_integers("spans", values.spans), None
    if values.num_long is not None:
        return None, {name: values[name].value for name in _ARRANGEMENT}
    if given:
        raise ValueError(f"--{given[0]} needs --num_long.")
    return None, None


def _user_errors():
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None:
        return _USER_ERRORS
    return (*_USER_ERRORS, tensorflow.errors.OpError)


def _report(text):
    program = os.path.basename(sys.argv[0])
    print(f"{program}: {text}", file=sys.stderr)
