"""What a request may use: read from its body, before it is reserved."""

from services.apimgmt.call import Call
from services.apimgmt.usage.estimator import Estimator
from services.extproc.api import Reply


def prepare(call: Call, estimator: Estimator) -> Reply | None:
    """Set `stream`, `prompt_tokens`, `max_output` and `strip_usage` of a call; edit its body where needed.

    Returns a denial (400, `max_tokens_too_large`) for a request that asks for more than its product allows.
    """
    raise NotImplementedError
