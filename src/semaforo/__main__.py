"""``python -m semaforo``: the command line without the console script."""

from semaforo.cli import main

if __name__ == "__main__":
    main()
