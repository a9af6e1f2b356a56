"""What the description cannot say of a good request, so that more of them come further than the door.

Long polls are cut short: they tell nothing that short ones do not.
"""

import schemathesis

LONGEST_MS = 20


def shortened(values, name, most):
    """Puts `most` in place of a larger number, whether it stands there as one or as text."""
    if not isinstance(values, dict) or name not in values:
        return
    try:
        if most < int(values[name]):
            values[name] = most
    except (TypeError, ValueError, OverflowError):
        pass


def mended(value):
    """Lengths of time that are such, moments of now, and no parent that is nowhere."""
    if isinstance(value, list):
        for item in value:
            mended(item)
    if not isinstance(value, dict):
        return
    for name in ("timeout", "lease"):
        if isinstance(value.get(name), str):
            value[name] = "PT30S"
    for name in ("run_at", "retry_at", "until"):
        if isinstance(value.get(name), str):
            value[name] = "2027-01-31T12:00:00Z"
    if isinstance(value.get("depends_on"), list):
        value["depends_on"] = []
    for name in ("jobs", "executions"):
        mended(value.get(name))


@schemathesis.hook
def before_call(context, case, kwargs):
    shortened(case.query, "wait", 0)
    shortened(case.body, "wait_ms", LONGEST_MS)
    # What is meant to be wrong stays as it is.
    if case.meta is not None and case.meta.generation.mode.is_positive:
        mended(case.body)
