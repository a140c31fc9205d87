"""What goes wrong with a stack, said so that its reader can mend it."""


class StackError(Exception):
    """Something keeps the stack from running: what it is, how to fix it, and what the process itself said."""

    def __init__(self, problem: str, *, fix: str = "", log: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix
        self.log = log

    def __str__(self) -> str:
        parts = [self.problem]
        if self.log:
            parts.append("it said last:\n" + "\n".join(f"  | {line}" for line in self.log.splitlines()))
        if self.fix:
            parts.append(f"fix: {self.fix}")
        return "\n".join(parts)
