"""The command line of `rednet`."""

from rednet_jax.cli.options import parser as parser
from rednet_jax.cli.run import main as main
