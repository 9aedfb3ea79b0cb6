"""The list of rules: functions whose names state the rule."""

ALL = []


def rule(check):
    """Adds a rule."""
    ALL.append((check.__name__.replace("_", " "), check))
    return check


def for_each(cases, say=str):
    """Adds a rule for each of several cases."""

    def add(check):
        name = check.__name__.replace("_", " ")
        for case in cases:
            ALL.append((f"{name}: {say(case)}", lambda case=case: check(case)))
        return check

    return add


def same(got, wanted, what=""):
    """Fails with both values if they differ."""
    assert got == wanted, f"{what or 'wrong'}: got {got!r}, want {wanted!r}"
