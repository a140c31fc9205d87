"""`python -m bench [NAME [WORDS]]`: one measurement, or all of them in turn."""

import runpy
import sys

NAMES = ("hot_sku", "calls", "pipeline", "edge", "order", "stack")


def main() -> None:
    name, *words = sys.argv[1:] or ["all"]
    if name not in (*NAMES, "all"):
        sys.exit(f"there is no bench {name!r}; there are {', '.join(NAMES)}")
    for one in NAMES if name == "all" else (name,):
        print(f"\n== {one}\n", flush=True)
        sys.argv = [f"bench.{one}", *words]
        runpy.run_module(f"bench.{one}", run_name="__main__")


if __name__ == "__main__":
    main()
