"""`python -m pipeline`. Code that workers run must not be defined here."""

import sys

from pipeline.errors import UsageError
from pipeline.house import check_house


def main() -> None:
    """Starts the command line, unless a package in the current folder hides one of ours."""
    try:
        check_house()
    except UsageError as error:
        print(f"pipeline: error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    from pipeline.cli import entry_point

    entry_point()


if __name__ == "__main__":
    main()
