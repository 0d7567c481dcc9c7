"""What exists and what is in service, as pure state."""

from semaforo.catalog.state import Catalog, Scaling

__all__ = ["Catalog", "Scaling"]
