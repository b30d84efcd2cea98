"""`python -m envfs.cli`."""

from envfs.cli.main import main

if __name__ == "__main__":
    main()
