"""A service that lives in the tests alone: it registers itself, and edits no file of the controller.

:data:`PLUGIN` on the path of a process brings it along, as an installed distribution would.
"""

from pathlib import Path

PLUGIN = Path(__file__).with_name("plugin")
