"""What there is to say about a server."""

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class ServiceStatus:
    """One server; nothing in it is secret. What only a running server has is None otherwise."""

    name: str
    running: bool
    version: str
    pid: int | None = None
    address: str | None = None
    create_time: float | None = None

    @property
    def since(self) -> datetime | None:
        """When it started, in UTC."""
        return datetime.fromtimestamp(self.create_time, UTC) if self.create_time else None
