"""`python -m iidm` is the command `iidm`."""

from iidm.command import main

if __name__ == "__main__":
    main()
