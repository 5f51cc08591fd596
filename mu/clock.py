"""A clock that does not jump when somebody sets the system's.

Twisted's timers follow the system's time. Set back by an hour, they would stand still for an hour, and
the journal with them; set forward, every time limit would be over.
"""

import time
from typing import Any


def make_steady(reactor: Any) -> None:
    """Have a reactor's `seconds` begin at the system's time and then count, whatever that does.

    Call it before anything else uses the reactor. Timestamps stay as wrong as the system's time was at
    the start; what others check, such as the time of a signature, must come from time.time().
    """
    offset = time.time() - time.monotonic()
    reactor.seconds = lambda: offset + time.monotonic()
