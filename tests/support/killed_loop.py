"""The real `loop`, which kills itself with SIGKILL at one line of its journal: exact where a signal from outside races.

python killed_loop.py after 7 run --scope ready     line 7 is written, nothing that follows it has begun
python killed_loop.py torn 7 run --scope ready      what line 7 tells of has happened, half of the line is written
python killed_loop.py torn landed run …             the same at the first event of this type in this process; for
                                                    an intent the type is that of its action
"""

from __future__ import annotations

import os
import signal
import sys

from hew_loop.cli import main
from hew_loop.core import events as ev
from hew_loop.engine.journal import Journal


def die_at(how: str, where: str) -> None:
    write = Journal.append

    def append(journal: Journal, event: ev.Event) -> ev.Stamped:
        is_here = where in (str(journal._seq + 1), _type(event))
        if is_here and how == "torn":
            os.write(journal._file, b'{"seq":')
            os.kill(os.getpid(), signal.SIGKILL)
        stamped = write(journal, event)
        if is_here:
            os.kill(os.getpid(), signal.SIGKILL)
        return stamped

    Journal.append = append  # type: ignore[method-assign]


def _type(event: ev.Event) -> str:
    return event.action.type if isinstance(event, ev.Intended) else event.type


if __name__ == "__main__":
    die_at(sys.argv[1], sys.argv[2])
    sys.argv[1:] = sys.argv[3:]
    main()
