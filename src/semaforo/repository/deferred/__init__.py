"""Work that waits on disk: queued requests, batches and their files, in one SQLite database."""

from semaforo.repository.deferred.records import BatchRecord, FileRecord, Item, NewItem, Outcome, Status, Work
from semaforo.repository.deferred.store import Bounds, QueueFull, StorageFull, Store

__all__ = [
    "BatchRecord",
    "Bounds",
    "FileRecord",
    "Item",
    "NewItem",
    "Outcome",
    "QueueFull",
    "Status",
    "StorageFull",
    "Store",
    "Work",
]
