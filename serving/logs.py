"""What a server writes about itself: lines for people, or JSON for machines; never who a person is or what they watched."""

import logging
from datetime import UTC, datetime

import orjson

TEXT = "%(levelname)s %(name)s: %(message)s"

FIELDS = ("request_id", "method", "route", "status", "ms")
"""What a line about a request says of it."""


class Json(logging.Formatter):
    """One line of JSON for each record: time, level, logger, message, and what is known of the request."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name in FIELDS if (value := getattr(record, name, None)) is not None},
        }
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return orjson.dumps(told, default=str).decode()


def set_up(kind: str) -> None:
    """Write "text" or "json" to stderr from now on."""
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if kind == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("aiobotocore").setLevel(logging.WARNING)  # it says where it found credentials
