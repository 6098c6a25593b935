"""``python -m kintsugi``: the command line, where its script is not on the path."""

from kintsugi.cli import main

main()
