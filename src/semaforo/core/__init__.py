"""The pure core: events in, effects out. See `semaforo.core.dispatcher` and `semaforo.core.controller`."""
