"""python -m fam_ext.cli is the `fam-hires` command."""

from fam_ext.cli import program

if __name__ == "__main__":
    program()
