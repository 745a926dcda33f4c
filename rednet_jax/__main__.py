"""`python -m rednet_jax` is `rednet`."""

import sys

from rednet_jax.cli.run import main

if __name__ == "__main__":
    sys.exit(main())
