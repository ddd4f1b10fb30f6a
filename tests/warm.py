"""`vaekit` in processes forked from one that has imported everything, so that each starts, and ends, at once.

python warm.py serve SOCKET         # until its standard input is closed
python warm.py SOCKET ARGUMENTS     # `vaekit ARGUMENTS`, with its streams, folder, environment and status
"""

import atexit
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path


def serve(path: str) -> None:
    import pandas  # noqa: F401
    import seaborn  # noqa: F401
    import sklearn.mixture  # noqa: F401
    import torch

    import vaekit.api
    import vaekit.cli.main
    import vaekit.evaluation.evaluate
    import vaekit.report.report
    import vaekit.training.session  # noqa: F401

    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # the first optimizer imports torch's compiler
    door = socket.socket(socket.AF_UNIX)
    door.bind(f"{path}.new")
    door.listen()
    Path(f"{path}.new").rename(path)  # there as soon as it is open
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks after those that wait for a verb
    while door in select.select([door, sys.stdin], [], [])[0]:
        visitor, _ = door.accept()
        if os.fork() == 0:
            door.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            attend(visitor)
            return
        visitor.close()


def attend(visitor: socket.socket) -> None:
    """Run the verb in a process of its own, and report how that ended."""
    message, streams, _, _ = socket.recv_fds(visitor, 1 << 20, 3)
    while part := visitor.recv(1 << 20):
        message += part
    if child := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        visitor.sendall(str(status if status >= 0 else 128 - status).encode())
        os._exit(0)
    visitor.close()
    request = json.loads(message)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["vaekit", *request["arguments"]]

    from vaekit.cli.main import main

    try:
        main()
    except SystemExit as end:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(int(end.code or 0))  # without clearing away all that was imported


def visit(path: str, arguments: list[str]) -> int:
    request = {"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.connect(path)
        socket.send_fds(visitor, [json.dumps(request).encode()], [0, 1, 2])
        visitor.shutdown(socket.SHUT_WR)
        return int(visitor.recv(16) or 1)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(visit(sys.argv[1], sys.argv[2:]))
