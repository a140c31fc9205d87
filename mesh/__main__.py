"""`python -m mesh` is the command `shopmesh`."""

from mesh.cli import app

if __name__ == "__main__":
    app(prog_name="shopmesh")
