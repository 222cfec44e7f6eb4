"""`python -m pipeline`. Nothing that a worker runs may be defined here."""

from pipeline.cli import entry_point

if __name__ == "__main__":
    entry_point()
