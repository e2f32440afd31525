"""The command line: one function per verb; an expected error becomes one line and an exit code."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from mhc_bench.errors import MhcBenchError, UsageError, closest

OVERRIDES_HELP = "OmegaConf dotlist, such as training.steps=100 or variants=[baseline,mhc]"
OVERRIDE = re.compile(r"(?!-)[\w.+~\[\]-]+=")
LISTS = ("suites", "variants", "models", "tasks", "runs")


class Parser(argparse.ArgumentParser):
    """Argument errors become the one line that every wrong usage gets."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments"):
            message = f"{message}; settings are key=value without spaces, such as seeds=[0,1]"
        raise UsageError(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `mhc-bench`.

    Returns:
        0 done, 1 failed, 2 wrong usage or configuration.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        options = _parse([word for word in words if word != "--debug"])
        call: Callable[[argparse.Namespace], int] = options.call
        return call(options)
    except MhcBenchError as error:
        if debug:
            raise
        print(f"mhc-bench: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 0
    except OSError as error:
        if debug or error.errno is None:
            raise
        place = f": {error.filename}" if error.filename else ""
        print(f"mhc-bench: {error.strerror}{place}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mhc-bench: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 1


def _parse(words: list[str]) -> argparse.Namespace:
    parser = _parser()
    verbs = next(a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb is not None and verb not in verbs:
        near = _suite_command(verb) or closest(verb, verbs)
        hint = f"; did you mean {near!r}?" if near else ""
        raise UsageError(f"unknown command {verb!r}: expected one of {', '.join(verbs)}{hint}")
    # argparse cannot mix a list of positionals with options, so the overrides are taken out first
    places = _override_places(words, verbs[verb] if verb else parser)
    overrides = [words[place] for place in places]
    options = parser.parse_args([word for place, word in enumerate(words) if place not in places])
    if overrides and not hasattr(options, "overrides"):
        raise UsageError(f"{verb} takes no overrides: {' '.join(overrides)}")
    options.overrides = overrides
    return options


def _override_places(words: list[str], parser: argparse.ArgumentParser) -> list[int]:
    """Which of `words` are settings: they look like `key=value`, and no option before them takes a value."""
    takers = [name for each in parser._actions if each.nargs != 0 for name in each.option_strings]

    def is_value(place: int) -> bool:
        before = words[place - 1] if place else ""
        return before.startswith("-") and any(name.startswith(before) for name in takers)

    return [i for i, word in enumerate(words) if OVERRIDE.match(word) and not is_value(i)]


def _suite_command(word: str) -> str | None:
    """What was meant by a suite's name where a command belongs."""
    from mhc_bench.config import part_names

    return f"run {word}" if word in part_names("suites") else None


def _parser() -> Parser:
    parser = Parser(
        prog="mhc-bench",
        description="Which residual connection should the next language model use, and what does it cost?",
        epilog="Every command takes --debug to show the traceback of an error.",
        formatter_class=partial(argparse.HelpFormatter, max_help_position=20),
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.set_defaults(call=_version)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    for add in (_add_running, _add_reading, _add_authoring):
        add(verbs)
    return parser


Verbs = argparse._SubParsersAction


def _verb(verbs: Verbs[Parser], name: str, call: Callable[[argparse.Namespace], int], text: str) -> Parser:
    parser = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(call=call)
    return parser


def _overrides(parser: Parser) -> None:
    parser.set_defaults(overrides=[])
    parser.epilog = f"key=value: {OVERRIDES_HELP}"


def _runs(parser: Parser) -> None:
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept (default: runs)")


def _json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_running(verbs: Verbs[Parser]) -> None:
    prepare = _verb(verbs, "prepare", _prepare, "tokenise data into shards, such as: prepare fineweb-edu")
    prepare.add_argument("data")
    _overrides(prepare)
    prepare.epilog = "key=value: fields of the data configuration, such as path=/data/shards"
    prepare.add_argument(
        "--processes",
        type=int,
        help="processes that tokenise (default: one per core that this process may use)",
    )
    prepare.add_argument(
        "--shard-tokens", type=int, default=2**27, help="tokens per shard (default: 134217728)"
    )
    run = _verb(
        verbs, "run", _run, "train, evaluate and collate all that is missing of a suite; safe to repeat"
    )
    run.add_argument("suite")
    _overrides(run)
    run.add_argument("--dry-run", action="store_true", help="print the plan and what is missing, do nothing")
    run.add_argument("--records", type=Path, help="also copy the records here, as they are published")
    run.add_argument(
        "--correction",
        metavar="WHY",
        help="with --records: a run that differs from its published record replaces it, for this reason",
    )
    _runs(run)
    train = _verb(verbs, "train", _train, "one training run, such as: train quick variant=mhc seed=0")
    train.add_argument("suite")
    _overrides(train)
    _runs(train)
    evaluate = _verb(verbs, "eval", _eval, "lm-eval on one run")
    evaluate.add_argument("run_dir", type=Path)
    _overrides(evaluate)
    export = _verb(
        verbs,
        "export",
        _export,
        "a run as a transformers checkpoint with a model card, or records as a Hugging Face dataset",
    )
    export.add_argument("source", type=Path, metavar="RUN_DIR|RECORDS_DIR")
    export.add_argument("out", type=Path)
    again = _verb(verbs, "reproduce", _reproduce, "run a record again and say how close it came")
    again.add_argument("record", type=Path, metavar="RECORD.json")
    again.add_argument(
        "--out", type=Path, default=Path("reproduction"), help="a new folder (default: reproduction)"
    )
    again.add_argument("--by", default="", help="who reproduces it, for those who read the result")
    again.add_argument(
        "--repetition",
        type=Path,
        metavar="OTHER.json",
        help="the record of a repetition that has been made already: compare, and run nothing",
    )
    bench = _verb(verbs, "bench", _bench, "timings, side by side in one process")
    bench.add_argument("what", choices=["step", "ops", "collate"])
    bench.add_argument("suite", nargs="?", help="step: the suite (default: quick)")
    _overrides(bench)
    bench.epilog = (
        f"key=value: of the suite ({OVERRIDES_HELP}); for ops of the grid, such as widths=[64,128]; for "
        "collate protocols, variants and seeds of the synthetic records"
    )
    bench.add_argument("--steps", type=int, default=40, help="measured rounds (default: 40)")
    bench.add_argument("--out", type=Path, metavar="FILE.json", help="also write JSON here")
    bench.add_argument(
        "--figure", type=Path, metavar="FILE.svg", help="also draw a figure: .svg, .png or .pdf"
    )
    _json(bench)


def _add_reading(verbs: Verbs[Parser]) -> None:
    board = _verb(
        verbs, "leaderboard", _leaderboard, "records to a page, Markdown, LaTeX, CSV, JSON and figures"
    )
    board.add_argument("records_dir", type=Path)
    board.add_argument("--suite", help="only this suite's records")
    board.add_argument("--out", type=Path, help="where to write (default: RECORDS_DIR/leaderboard)")
    board.add_argument("--into", type=Path, help="also put the head of the page into this Markdown file")
    compare = _verb(verbs, "compare", _compare, "the paired analysis of two variants, in words and numbers")
    compare.add_argument("records_dir", type=Path)
    compare.add_argument("first", metavar="A", help="a variant")
    compare.add_argument("second", metavar="B", help="the variant that A is compared with")
    compare.add_argument("--suite", help="only this suite's records")
    _json(compare)
    listing = _verb(verbs, "list", _list, "what there is")
    listing.add_argument("what", choices=LISTS)
    _runs(listing)
    _json(listing)
    describe = _verb(verbs, "describe", _describe, "a suite, a variant or a record in detail")
    describe.add_argument("what", metavar="SUITE|VARIANT|RECORD.json")
    _overrides(describe)
    _json(describe)
    verify = _verb(verbs, "verify", _verify, "all that can be checked of records without training")
    verify.add_argument(
        "paths", type=Path, nargs="+", metavar="PATH", help="records, or folders with records"
    )
    _json(verify)
    plan = _verb(verbs, "plan", _plan, "runs, tokens, FLOPs, memory per device, disk and hours of a suite")
    plan.add_argument("suite")
    _overrides(plan)
    _runs(plan)
    _json(plan)
    doctor = _verb(verbs, "doctor", _doctor, "what this machine can run, and what is missing")
    _json(doctor)


def _add_authoring(verbs: Verbs[Parser]) -> None:
    new = _verb(verbs, "new-variant", _new_variant, "a module and a configuration to start a variant from")
    new.add_argument("name", help="lower case with dashes, such as gated-skip")
    new.add_argument(
        "--package",
        type=Path,
        metavar="DIR",
        help="a package of your own (default: here in a checkout, elsewhere a new package ./NAME)",
    )
    check = _verb(verbs, "check", _check, "what every residual connection must do, on one variant")
    check.add_argument("variant", help="a variant's name, its .yaml file, or module:Class")
    _overrides(check)
    check.epilog = "key=value: options of the variant, such as streams=2"
    check.add_argument(
        "--backbone", default="llama", help="a model family (tiny), or one of: list models (default: llama)"
    )
    check.add_argument("--only", nargs="+", default=[], metavar="CHECK", help="these checks alone")
    _json(check)


def _version(options: argparse.Namespace) -> int:
    from mhc_bench import __version__

    if options.version:
        print(f"mhc-bench {__version__}")
        return 0
    _parser().print_help()
    return 0


def _prepare(options: argparse.Namespace) -> int:
    from mhc_bench.suite.prepare import run

    return run(options.data, options.overrides, options.processes, options.shard_tokens)


def _run(options: argparse.Namespace) -> int:
    from mhc_bench.suite.commands import run
    from mhc_bench.suite.publishing import publication

    target = publication(options.records, options.correction)
    return run(options.suite, options.overrides, options.runs, options.dry_run, target)


def _train(options: argparse.Namespace) -> int:
    from mhc_bench.suite.commands import train

    return train(options.suite, options.overrides, options.runs)


def _eval(options: argparse.Namespace) -> int:
    from mhc_bench.suite.commands import evaluate

    return evaluate(options.run_dir, options.overrides)


def _export(options: argparse.Namespace) -> int:
    from mhc_bench.suite.exporting import export

    export(options.source, options.out)
    print(f"exported to {options.out}")
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    from mhc_bench.suite.reproduce import reproduce

    return reproduce(options.record, options.out, options.by, options.repetition)


def _bench(options: argparse.Namespace) -> int:
    from mhc_bench.suite.bench import Output, bench_collate, bench_ops, bench_step

    output = Output(options.json, options.out, options.figure)
    if options.what == "step":
        return bench_step(options.suite or "quick", options.overrides, options.steps, output)
    if options.suite is not None:
        raise UsageError(f"bench {options.what} takes no suite: found {options.suite!r}")
    if options.what == "collate":
        return bench_collate(options.overrides, output)
    return bench_ops(options.overrides, options.steps, output)


def _leaderboard(options: argparse.Namespace) -> int:
    from mhc_bench.suite.pages import leaderboard

    return leaderboard(options.records_dir, options.suite, options.out, options.into)


def _compare(options: argparse.Namespace) -> int:
    from mhc_bench.suite.compare import show

    return show(options.records_dir, options.first, options.second, options.suite, options.json)


def _list(options: argparse.Namespace) -> int:
    from mhc_bench.suite.listing import show

    return show(options.what, options.runs, options.json)


def _describe(options: argparse.Namespace) -> int:
    from mhc_bench.suite.describe import show

    return show(options.what, options.overrides, options.json)


def _verify(options: argparse.Namespace) -> int:
    from mhc_bench.suite.verify import show

    return show(options.paths, options.json)


def _plan(options: argparse.Namespace) -> int:
    from mhc_bench.suite.commands import plan

    return plan(options.suite, options.overrides, options.runs, options.json)


def _new_variant(options: argparse.Namespace) -> int:
    from mhc_bench.suite.scaffold import new_variant

    return new_variant(options.name, options.package)


def _check(options: argparse.Namespace) -> int:
    from mhc_bench.suite.check import show

    return show(options.variant, options.overrides, options.backbone, options.only, options.json)


def _doctor(options: argparse.Namespace) -> int:
    from mhc_bench.suite.doctor import show

    return show(options.json)


if __name__ == "__main__":
    sys.exit(main())
