"""python -m fam_ext.cli is the `fam-hires` command."""

from fam_ext.cli import main

if __name__ == "__main__":
    main()
