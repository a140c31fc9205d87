"""The error that every command reports: the problem, and how to fix it."""


class StackError(Exception):
    """A problem with a stack: what it is, how to fix it, and the end of the process's log."""

    def __init__(self, problem: str, *, fix: str = "", log: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix
        self.log = log

    def __str__(self) -> str:
        parts = [self.problem]
        if self.log:
            parts.append("the end of its log:\n" + "\n".join(f"  | {line}" for line in self.log.splitlines()))
        if self.fix:
            parts.append(f"fix: {self.fix}")
        return "\n".join(parts)
