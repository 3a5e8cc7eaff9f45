"""`python -m bench`: the whole benchmark."""

from bench.run import main

main()
