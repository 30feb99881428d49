"""PRBandit for scripts and notebooks: runs as data frames, and what to write a policy or a service with.

>>> import prbandit
>>> run = prbandit.load_run("runs/last-night")        # doctest: +SKIP
>>> run.decisions, run.measures                       # doctest: +SKIP
"""

from importlib.metadata import version

from controller.experiments.compare import compare
from controller.store.load import RunData, load_run

__all__ = ["RunData", "__version__", "compare", "load_run"]

__version__ = version("prbandit")
