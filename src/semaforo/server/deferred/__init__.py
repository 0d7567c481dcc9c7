"""Work answered later: the queue on disk behind ``semaforo-mode: queue``, and OpenAI's files and batches."""
