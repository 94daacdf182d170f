"""An S3 server for tests: moto's, in a process of its own, that answers one request after the other and counts them.

python tests/s3.py [--deaf]: prints its address, and ends with stdin. --deaf: it does not hear `If-None-Match`, as some servers do not.
"""

import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


def main(deaf: bool) -> None:
    moto, counted = DomainDispatcherApplication(create_backend_app), Counter[str]()

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] == "/counted":
            start("200 OK", [("content-type", "text/plain")])
            return [f"{counted.total()}".encode()]
        if deaf:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        counted[environ["REQUEST_METHOD"]] += 1
        return moto(environ, start)

    server = make_server("127.0.0.1", 0, app)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    main("--deaf" in sys.argv)
