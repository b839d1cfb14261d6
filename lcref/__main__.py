"""python -m lcref"""

import sys

from .cli import main

if __name__ == "__main__":      # a worker of a sweep by MPI imports this too
    sys.exit(main())
