"""`python -m clearspan` is `clearspan`."""

from clearspan.cli.main import main

if __name__ == "__main__":
    main()
