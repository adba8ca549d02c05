"""`python -m duramen`: the command line, where the script `duramen` is not on the path."""

from duramen.cli import main

if __name__ == "__main__":
    main()
