"""How a container is started and ended: as a child of the daemon, or as a unit of systemd's.

Both ways give the same: the container's output, word of its end, and that nothing of it is left
when it is let go.  What a build is, is not known here.
"""

from cupolad.launch.child import ChildLauncher
from cupolad.launch.containers import Container, Ending, Launcher, NotStartedError, Order
from cupolad.launch.ending import StuckError, end
from cupolad.launch.unit import UnitLauncher

__all__ = [
    "ChildLauncher",
    "Container",
    "Ending",
    "Launcher",
    "NotStartedError",
    "Order",
    "StuckError",
    "UnitLauncher",
    "end",
]
