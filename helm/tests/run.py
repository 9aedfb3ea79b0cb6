"""Runs all rules of the chart, or the rules whose names contain a word of the command line."""

import importlib
import pathlib
import sys
import time
import traceback

from support import rules


def main():
    """Prints one line for each rule, and the totals."""
    for module in sorted(pathlib.Path(__file__).parent.glob("*_test.py")):
        importlib.import_module(module.stem)
    wanted = sys.argv[1:]
    passed, failed = 0, 0
    for name, check in rules.ALL:
        if wanted and not any(word in name for word in wanted):
            continue
        started = time.monotonic()
        try:
            check()
        except Exception as error:  # pylint: disable=broad-except
            failed += 1
            where = "" if isinstance(error, AssertionError) and str(error) else traceback.format_exc()
            print(f"FAILED  {name}\n{where or error}", flush=True)
        else:
            passed += 1
            print(f"ok      {name} ({time.monotonic() - started:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
