"""What Semaforo is compared with, each a server of its own."""
