"""`python -m syncdisc_plugin` is `syncdisc`."""

import sys

from syncdisc_plugin.cli import main

if __name__ == "__main__":
    sys.exit(main())
